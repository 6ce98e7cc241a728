"""Questions with a rewrite of each, as two views of one problem (see `rljax.rewards.vote`)."""

from rljax.data import arithmetic, datasets, tasks
from rljax.types import Task


def rewritten(*, path: str | None = None, template: str = "{question}", chat: bool = True,
              on_bad_row: str = "error") -> tasks.TaskSet:
  """Rows with `question`, `rewrite` and `answer` ("#### n" or n): tasks 2i and 2i+1 are one row.

  A rewrite must have the same answer; whoever wrote it has checked that. Rows without a rewrite (it
  could not be parsed) are bad rows.

  Args:
    path: anything `datasets.rows` reads.
    template: wraps question and rewrite at "{question}".
    chat: the prompt is one user message, else plain text.

  Raises:
    ConfigError: as `datasets.rows`; a bad row (counted instead with `on_bad_row="skip"`).
  """
  datasets.check_template(template, "question")

  def make(row):
    answer = str(datasets.field(row, "answer")).rpartition("####")[2].strip().replace(",", "")
    try:
      arithmetic.parse_number(answer)
    except ArithmeticError:
      raise datasets.BadRow("has no number in its field 'answer'") from None
    texts = [str(datasets.field(row, name)).strip() for name in ("question", "rewrite")]
    if not all(texts):
      raise datasets.BadRow("has an empty question or rewrite")
    prompts = [tasks.fill(template, {"question": t}) for t in texts]
    return Task(id="", prompt=prompts[0], answer=answer, info={"rewrite": prompts[1]},
                verifier="rljax.rewards.verify:number")

  rows = datasets.from_rows("rewritten", datasets.rows(path, on_bad_row=on_bad_row), make,
                            on_bad_row=on_bad_row)

  def draw(i):
    task, view = rows[i // 2], i % 2
    text = task.info["rewrite"] if view else task.prompt
    return Task(id=f"{task.id}/{view}", answer=task.answer, verifier=task.verifier,
                prompt=[{"role": "user", "content": text}] if chat else text,
                info={"pair": task.id, "view": view})

  return tasks.TaskSet(draw, 2 * len(rows), counts=rows.counts)
