"""Tools: a session that keeps its variables, a database that cannot be changed, search, judges."""

import json
import pickle
import shutil
import threading

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.envs import formal, python_exec, retrieval, sqlite
from rljax.rewards import formal as formal_rewards
from rljax.rewards import sql

# --- Python ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python():
  return python_exec.python(seconds=2.0)


def test_a_session_keeps_its_variables(python):
  state = python.start(None, 0)
  state, out, failed = python.call(state, "x = 6\nx * 7")
  assert (out, failed) == ("42", False)
  state, out, failed = python.call(state, "```python\nprint(x)\n```")
  assert (out, failed) == ("6", False)
  state, out, failed = python.call(state, "print(1)\nx / 0")
  assert failed and out == "1\nZeroDivisionError: division by zero"
  assert python.call(state, "x + 1")[1] == "7"  # an exception leaves the session alive
  python.close(state)


def test_a_state_can_be_forked_and_moved(python):
  state, _, _ = python.call(python.start(None, 0), "items = []")
  left, _, _ = python.call(state, "items.append(1); items")
  right, out, _ = python.call(pickle.loads(pickle.dumps(state)), "items.append(2); items")
  assert out == "[2]"  # not [1, 2]: the other branch has an interpreter of its own
  assert python.call(left, "items")[1] == "[1]" and python.call(right, "items")[1] == "[2]"


def test_randomness_follows_the_seed_of_the_episode(python):
  draw = lambda seed: python.call(python.start(None, seed), "import random\nrandom.random()")[1]
  assert draw(1) == draw(1) != draw(2)


def test_interpreters_are_put_out_and_come_back():
  tool = python_exec.python(keep=1)
  a, _, _ = tool.call(tool.start(None, 0), "x = 'a'")
  b, _, _ = tool.call(tool.start(None, 1), "x = 'b'")
  assert len(tool._live) == 1
  assert tool.call(a, "x")[1] == "'a'" and tool.call(b, "x")[1] == "'b'"


def test_arithmetic_needs_no_interpreter_and_sounds_the_same(python):
  """What `_simple` says is what the sandbox says; what it leaves to the sandbox is left."""
  alone = ["417*385", "-7 // 2 % 3", "1/8 + 2.5", "1/0", "417*", "(1", " 1", "1 +\\n 2", "x y",
           "1e999", "1\n", "# nothing\n2", "-" * 90 + "1", "\0"]
  for cell in alone:
    assert (said := python_exec._simple(cell)) is not None, cell
    state = (0, "pass")  # of a session that has begun: everything is run
    assert python.call(state, cell)[1:] == said, cell
    assert python.call((0,), cell) == ((0,), *said)
  for cell in ("x", "2**9", "True", "'a'*3", "1; 2", "1\n2", "", "print(1)", "x = 1", "1j", "[1]",
               "(lambda: 1)()", "return 1", "1 < 2", "1" * 300, "1 if 2 else 3", "..."):
    assert python_exec._simple(cell) is None, cell
  assert len(python.call((0,), "x = 1")[0]) == 2


def test_a_cell_that_does_not_end_is_stopped():
  tool = python_exec.python(seconds=0.5, output="r")
  state, out, failed = tool.call(tool.start(None, 0), "while True: pass")
  assert failed and "0.5 s" in out and tool.output == "r"
  assert tool.call(state, "1")[2]  # the session is over


def test_memory_is_limited():
  tool = python_exec.python(memory_mib=200)
  _, out, failed = tool.call(tool.start(None, 0), "x = bytearray(400 << 20)")
  assert failed and "MemoryError" in out


def test_threads_share_the_tool(python):
  out = {}

  def work(n):
    state = python.start(None, n)
    for _ in range(3):
      state, text, _ = python.call(state, f"v = globals().get('v', {n}) + 1; v")
    out[n] = text
  threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
  [t.start() for t in threads]
  [t.join() for t in threads]
  assert out == {n: str(n + 3) for n in range(4)}


# --- SQL ------------------------------------------------------------------------------------------

SCRIPT = """
CREATE TABLE city (id INTEGER PRIMARY KEY, name TEXT, people INTEGER, land INTEGER);
CREATE TABLE land (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO land VALUES (1, 'Ost'), (2, 'West');
INSERT INTO city VALUES (1, 'Ahl', 10, 1), (2, 'Bor', 30, 2), (3, 'Cex', 20, 2);
"""


def question(gold, **database):
  return types.Task("q", "", answer=gold, info={"sql": database or {"script": SCRIPT}})


@pytest.mark.parametrize("attack", [
    "DROP TABLE city", "DELETE FROM city", "INSERT INTO land VALUES (3, 'x')",
    "UPDATE city SET people = 0", "CREATE TABLE t (x)", "ATTACH 'other.db' AS o",
    "PRAGMA query_only = OFF", "PRAGMA writable_schema = 1", "VACUUM INTO 'copy.db'",
    "SELECT load_extension('x')", "SELECT 1; DROP TABLE city", "BEGIN", "REINDEX", "",
    "CREATE TEMP TABLE t (x)", "WITH x AS (SELECT 1) DELETE FROM city",
    "SELECT zeroblob(1000000000)", "SELECT * FROM pragma_table_info('city')",
])
def test_a_query_can_only_read(attack, tmp_path):
  path = tmp_path / "a.db"
  import sqlite3
  with sqlite3.connect(path) as c:
    c.executescript(SCRIPT)
  before = path.read_bytes()
  connection = sqlite.connect({"path": str(path)})
  assert sqlite.query(connection, attack).error
  assert sqlite.query(connection, "SELECT count(*) FROM city").rows == ((3,),)
  assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.db"]


def test_limits_of_rows_and_time():
  endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"
  limits = sqlite.Limits(rows=5, seconds=0.2)
  connection = sqlite.connect({"script": SCRIPT}, limits)
  answer = sqlite.query(connection, endless.format("x"), limits)
  assert answer.rows == tuple((i,) for i in range(1, 6)) and answer.cut
  assert "0.2 s" in sqlite.query(connection, endless.format("sum(x)"), limits).error
  wide = sqlite.Limits(cells=6)
  assert len(sqlite.query(connection, "SELECT * FROM city", wide).rows) == 1


def test_the_tool_shows_rows_and_errors():
  tool = sqlite.database(shown=2, rows=3)
  state = tool.start(question(""), 0)
  _, text, failed = tool.call(state, "SELECT name, people FROM city ORDER BY id;")
  assert text == "name | people\nAhl | 10\nBor | 30\n... 1 more rows" and not failed
  _, text, failed = tool.call(state, "SELECT nme FROM city")
  assert failed and "no such column" in text
  assert "Error" in sqlite.database(seconds=0.1).call(
      state, "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT sum(x) FROM n")[1]


def test_a_task_without_a_database_is_the_tasks_fault(tmp_path):
  for bad in ({"path": str(tmp_path / "none.db")}, {"script": "CREATE nonsense"}, {"x": 1}):
    with pytest.raises(ConfigError):
      sqlite.connect(bad)


GOLD = "SELECT name FROM city WHERE people > 15"


@pytest.mark.parametrize("gold,found,score", [
    (GOLD, "SELECT c.name FROM city AS c WHERE c.people >= 20", 1),
    (GOLD, "SELECT name FROM city WHERE people > 15 ORDER BY name DESC", 1),  # a bag
    (GOLD, "SELECT name FROM city", 0), (GOLD, "SELECT nme FROM city", 0), (GOLD, "", 0),
    (GOLD, "SELECT name, people FROM city WHERE people > 15", 0),
    (GOLD, "SELECT name FROM city WHERE people > 15 UNION ALL SELECT 'Bor'", 0),
    (GOLD + " ORDER BY people", "SELECT name FROM city WHERE people > 15 ORDER BY 1 DESC", 1),
    (GOLD + " ORDER BY people", "SELECT name FROM city WHERE people > 15 ORDER BY name", 0),
    ("SELECT avg(people) FROM city", "SELECT sum(people) * 1.0 / 3 FROM city", 1),
    ("SELECT name FROM (SELECT * FROM city ORDER BY id) t", "SELECT name FROM city", 1),
])
def test_execution_match(gold, found, score):
  for text in (found, f"so\n```sql\n{found}\n```", f"<answer>{found}</answer>"):
    assert sql.execution(question(gold), text) == score


def test_a_gold_query_that_fails_judges_nothing():
  with pytest.raises(ValueError, match="its own query"):
    sql.execution(question("SELECT nme FROM city"), GOLD)
  with pytest.raises(ValueError):
    sql.schema_linking(question("SELECT 1"), GOLD)


def test_partial_rewards():
  task = question("SELECT c.name FROM city c JOIN land l ON c.land = l.id WHERE l.name = 'West'")
  # gold: city, land, city.name, city.land, land.id, land.name
  assert sql.schema_linking(task, task.answer) == 1
  assert sql.schema_linking(task, "SELECT name FROM city") == 2 / 6
  assert sql.schema_linking(task, "SELECT NAME, people FROM City AS x") == 2 / 7
  assert sql.schema_recall(task, "SELECT NAME, people FROM City AS x") == 2 / 6
  assert sql.schema_linking(task, "SELECT FROM WHERE") == 0 == sql.schema_linking(task, "what?")
  assert sql.executable(task, "SELECT 1") == 1 and sql.executable(task, "SELECT nme") == 0
  assert sql.bigrams(question("SELECT a FROM t"), "select a from u") == 2 / 4
  assert sql.bigrams(task, "SELECT") == 0


# --- search ---------------------------------------------------------------------------------------

PASSAGES = [
    {"id": "a", "title": "Alps", "text": "the high mountains of the south"},
    {"id": "b", "title": "Sea", "text": "the deep sea, the wide sea"},
    {"id": "c", "title": "Town", "text": "a town by the sea"},
    {"id": "d", "title": "Town", "text": "a town by the sea"},
]


@pytest.fixture
def corpus(tmp_path):
  path = tmp_path / "corpus.jsonl"
  path.write_text("".join(json.dumps(p) + "\n" for p in PASSAGES))
  return str(path)


def okapi(query, k1, b):
  """Lucene's BM25 by its formula, in a loop."""
  docs = [retrieval.words(f"{p['title']} {p['text']}") for p in PASSAGES]
  mean = np.mean([len(d) for d in docs])
  out = np.zeros(len(docs))
  for word in retrieval.words(query):
    df = sum(word in d for d in docs)
    for i, d in enumerate(docs):
      tf = d.count(word)
      idf = np.log(1 + (len(docs) - df + 0.5) / (df + 0.5))
      out[i] += idf * tf / (tf + k1 * (1 - b + b * len(d) / mean))
  return out


@pytest.mark.parametrize("query", ["sea", "deep sea", "the town", "SEA sea mountains!", "alps"])
@pytest.mark.parametrize("k1,b", [(0.9, 0.4), (1.5, 0.75)])
def test_bm25_is_the_formula(query, k1, b):
  pytest.importorskip("bm25s", reason="bm25s is not installed")
  found = retrieval.bm25_index(PASSAGES, k1=k1, b=b).search(query, 4)
  scores = okapi(query, k1, b)
  order = [i for i in np.argsort(-scores, kind="stable") if scores[i] > 0]
  assert [p["id"] for p, _ in found] == [PASSAGES[i]["id"] for i in order]
  assert np.allclose([s for _, s in found], scores[order], rtol=1e-5)


def test_search_returns_documents_and_says_when_there_are_none(corpus):
  pytest.importorskip("bm25s", reason="bm25s is not installed")
  tool = retrieval.bm25(corpus=corpus, top=2, empty="nothing", output="info")
  _, text, failed = tool.call(None, "sea town")
  assert text == "Doc 1(Title: Town) a town by the sea\nDoc 2(Title: Town) a town by the sea\n"
  assert not failed and tool.output == "info"
  for query in ("", "unknown words", "?!"):
    assert tool.call(None, query)[1:] == ("nothing", True)
  assert retrieval.bm25(corpus=lambda: PASSAGES, form="{n}.{text}", top=1).call(
      None, "town")[1] == "1.a town by the sea"
  one = retrieval.bm25(corpus=corpus, top=1, method="robertson")
  assert one.call(None, "mountains")[1].startswith("Doc 1(Title: Alps)")
  with pytest.raises(ConfigError, match="method"):
    retrieval.bm25(corpus=corpus, method="best")


def test_the_best_are_by_score_then_place():
  scores = np.array([0.0, 2.0, 1.0, 2.0, 3.0, 1.0])
  assert retrieval.best(scores, 4).tolist() == [4, 1, 3, 2]
  assert retrieval.best(scores, 9).tolist() == [4, 1, 3, 2, 5]  # never one that scores 0


def test_dense_search_finds_what_shares_words(corpus):
  tool = retrieval.dense(corpus=corpus, top=1)
  assert tool.call(None, "high mountains in the south")[1].startswith("Doc 1(Title: Alps)")
  assert tool.call(None, "")[2]

  def constant():
    return lambda texts: np.stack([[len(t), 1.0] for t in texts])
  other = retrieval.dense(corpus=corpus, top=4, encoder=constant)
  assert other.call(None, "x")[1] != retrieval.dense(corpus=corpus, top=4).call(None, "x")[1]
  a, b = retrieval.hashed(width=8)(["sea"]), retrieval.hashed(width=8, seed=1)(["sea"])
  assert a.shape == (1, 8) and not np.allclose(a, b)


@pytest.mark.parametrize("line,message", [
    ("{}", "expected an object"), ("no json", "expected an object"),
    ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "occurs twice"), ("", "empty|expected")])
def test_a_bad_corpus_is_refused_with_its_line(tmp_path, line, message):
  path = tmp_path / "c.jsonl"
  path.write_text(line)
  with pytest.raises(ConfigError, match=message):
    retrieval.read_corpus(str(path))
  with pytest.raises(ConfigError, match="no file"):
    retrieval.read_corpus(str(tmp_path / "none"))


# --- judges ---------------------------------------------------------------------------------------

HEAD = "module top(input a, input b, output y); "
BENCH = {"checks": 4, "bench": """
module tb; reg a, b; wire y; integer i; top dut(.a(a), .b(b), .y(y));
initial begin
  for (i = 0; i < 4; i = i + 1) begin
    {a, b} = i; #1;
    if (y === (a ^ b)) $display("PASS %0d", i); else $display("FAIL %0d: y=%b", i, y);
  end
  $finish;
end endmodule"""}


def needs(program):
  return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@needs("iverilog")
@pytest.mark.parametrize("body,score", [
    ("assign y = a ^ b; endmodule", 1), ("assign y = a | b; endmodule", 0.75),
    ("assign y = a ^; endmodule", 0), ("", 0),
    ('assign y = a; initial $display("PASS"); endmodule', 0),
    ('wire \\" ; initial $finish; wire \\" ; assign y = 0; endmodule', 0),
    ('assign y = a; /* " */ initial $finish; /* " */ endmodule', 0),
    ("`include \"/etc/passwd\"\nassign y = a ^ b; endmodule", 0),
    ("assign y = a; initial force tb.y = 1; endmodule", 0),
    ("assign y = a ^ b; endmodule module tb; endmodule", 1),
    ("// not $display but a comment\nassign y = a ^ b; endmodule", 1)])
def test_verilog_is_judged_by_its_bench_alone(body, score):
  assert formal.verilog(HEAD + body, BENCH).score == score


@needs("iverilog")
def test_a_simulation_that_hangs_is_stopped_and_a_bench_is_believed_to_the_letter():
  limits = formal.sandbox.Limits(seconds=0.5, memory=1 << 30, processes=32)
  hang = HEAD + "reg r; initial while (1) r = 1; assign y = a ^ b; endmodule"
  assert "stopped after" in formal.verilog(hang, BENCH, limits=limits).message
  with pytest.raises(ValueError, match="checks"):
    formal.verilog(HEAD + "assign y = a ^ b; endmodule", {**BENCH, "checks": 3})
  task = types.Task("t", "", info={"verilog": BENCH})
  text = f"so\n```verilog\n{HEAD}assign y = a & b; endmodule\n```"
  assert formal_rewards.verilog(task, text) == 0.25


@needs("coqc")
@pytest.mark.parametrize("script,score", [
    ("induction n; simpl; auto.", 1), ("Proof. intros; auto. Qed.", 1),
    ("destruct n.", 0), ("nonsense.", 0),
    ("Admitted. Theorem x : True. Proof. trivial.", 0),
    ("Abort. Axiom F : False. Theorem goal : forall n : nat, n + 0 = n. Proof. destruct F.", 0),
    ("Abort. Theorem goal : True. Proof. trivial.", 0),
    ("Abort. Unset Guard Checking. Fixpoint f (n : nat) : False := f n. "
     "Theorem goal : forall n : nat, n + 0 = n. Proof. destruct (f 0).", 0)])
def test_coq_proofs_are_checked_from_outside(script, score):
  task = types.Task("t", "", info={"coq": {"statement": "forall n : nat, n + 0 = n"}})
  assert formal_rewards.coq(task, script) == score


@needs("coqc")
def test_coq_axioms_may_be_allowed_and_errors_come_back():
  spec = {"statement": "forall P : Prop, P \\/ ~ P", "preamble": "Require Import Classical."}
  script = "exact classic."
  assert formal.coq(script, spec).score == 0
  assert formal.coq(script, {**spec, "axioms": ["classic"]}).score == 1
  tool = formal.coq_tool()
  _, text, failed = tool.call(tool.start(types.Task("t", "", info={"coq": spec}), 0), "exact X.")
  assert failed and "X was not found" in text


LOGIC = {"statement": "|- ( ph -> ph )", "database": """
$c ( ) -> wff |- $. $v ph ps ch $. wph $f wff ph $. wps $f wff ps $. wch $f wff ch $.
wi $a wff ( ph -> ps ) $.
${ min $e |- ph $. maj $e |- ( ph -> ps ) $. mp $a |- ps $. $}
ax1 $a |- ( ph -> ( ps -> ph ) ) $.
ax2 $a |- ( ( ph -> ( ps -> ch ) ) -> ( ( ph -> ps ) -> ( ph -> ch ) ) ) $.
"""}
IDENTITY = ("wph wph wph wi wi wph wph wi wph wph ax1 wph wph wph wi wph wi wi wph wph wph wi wi "
            "wph wph wi wi wph wph wph wi ax1 wph wph wph wi wph ax2 mp mp")


@needs("metamath")
@pytest.mark.parametrize("proof,score", [
    (IDENTITY, 1), ("wph wph ax1", 0), ("?", 0), ("goal", 0), ("wph nosuch", 0), ("", 0),
    ("$. bad $a |- ph $. goal2 $p |- ( ph -> ph ) $= wph", 0), (IDENTITY + " wph", 0)])
def test_metamath_proofs(proof, score):
  task = types.Task("t", "", info={"metamath": LOGIC})
  assert formal_rewards.metamath(task, proof) == score


@needs("metamath")
def test_metamath_hypotheses_and_messages():
  spec = {**LOGIC, "statement": "|- ( ps -> ph )", "hypotheses": ["h1 $e |- ph $."]}
  assert formal.metamath("wph wps wph wi h1 wph wps ax1 mp", spec).score == 1
  tool = formal.metamath_tool()
  state = tool.start(types.Task("t", "", info={"metamath": LOGIC}), 0)
  assert "nosuch" in tool.call(state, "wph nosuch")[1] or "step 2" in tool.call(
      state, "wph nosuch")[1]


def test_a_missing_program_is_named_with_its_package():
  with pytest.raises(ConfigError, match="apt-get install ghost"):
    formal.need("no-such-program", "ghost")
