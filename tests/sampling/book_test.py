"""Seating requests: prompts are shared, conversations keep their slot, nothing is lost."""

import numpy as np

from rljax.sampling import book as book_lib
from rljax.sampling import orders as orders_lib

A, B = np.array([1, 2, 3]), np.array([4, 5])


def seat(book, index, prompt, slots=None):
  """Seats a fresh prompt, in one of these slots."""
  free = [{s: None for s in d if slots is None or s in slots} for d in book.free()]
  return book.seat_fresh(index, prompt, free, set())


def numbers(free):
  return [s for device in free for s in device]


def test_one_round_of_a_group_reads_its_prompt_once():
  book, taken = book_lib.Book(4), set()
  free = book.free()
  seats = [book.seat_fresh(i, A, free, taken) for i in range(3)]
  assert [s.source for s in seats] == [-1, -1, -1]  # the writer gives all three the same row
  assert sorted(s.slot for s in seats) == [0, 1, 2] and numbers(free) == [3]
  assert book.live() == [0, 1, 2]


def test_a_later_request_of_the_group_copies_from_a_slot_that_still_holds_the_prompt():
  book = book_lib.Book(3)
  first = seat(book, 0, A)
  second = seat(book, 1, A)
  assert second.source == first.slot != second.slot


def test_a_finished_slot_with_the_same_prompt_is_used_again_without_copying():
  book = book_lib.Book(3)
  slot = seat(book, 0, A).slot
  book.finish(slot, None)
  again = seat(book, 1, A)
  assert (again.slot, again.source) == (slot, slot)


def test_a_slot_about_to_be_overwritten_is_no_source():
  book, taken = book_lib.Book(2), set()
  slot = seat(book, 0, A).slot
  book.finish(slot, None)
  assert book.seat_fresh(1, B, [{slot: None}], taken).slot == slot
  assert book.seat_fresh(2, A, book.free(), taken).source == -1


def test_devices_do_not_share_prompts_and_fill_evenly():
  book = book_lib.Book(4, devices=2)
  free, taken = book.free(), set()
  slots = [book.seat_fresh(i, np.array([i]), free, taken).slot for i in range(4)]
  assert {s // 2 for s in slots[:2]} == {0, 1}
  book = book_lib.Book(4, devices=2)
  first = seat(book, 0, A, [0])
  assert first.slot == 0
  assert seat(book, 1, A, [2, 3]).source == -1  # the prompt is on the other device
  assert seat(book, 2, A, [1]).source == 0


def conversation(book, slot=None):
  seated = seat(book, 0, A, slot if slot is None else [slot])
  handle = book_lib.Handle(np.array([1, 2, 3, 9]), cached=3, slot=seated.slot)
  book.finish(seated.slot, handle)
  return handle


def test_a_conversation_goes_on_in_its_slot_and_reads_only_what_is_new():
  book = book_lib.Book(2)
  handle = conversation(book)
  slot = handle.slot
  assert slot not in numbers(book.free())
  going = book.seat_parent(5, handle, B, book.free())
  assert (going.slot, going.source, going.start) == (slot, slot, 3)
  np.testing.assert_array_equal(going.tokens, [9, 4, 5])
  np.testing.assert_array_equal(book.read[slot], [1, 2, 3, 9, 4, 5])
  assert handle.slot is None and book.request[slot] == 5


def test_a_fork_is_answered_in_a_copy_and_the_last_one_in_place():
  book = book_lib.Book(3)
  handle = conversation(book)
  other, slot, free = book.fork(handle), handle.slot, book.free()
  copy = book.seat_parent(1, other, B, free)
  assert copy.source == slot != copy.slot and copy.slot not in numbers(free)
  assert book.seat_parent(2, handle, B, free).slot == slot


def test_a_fork_waits_for_a_free_slot():
  book = book_lib.Book(1)
  handle = conversation(book)
  other = book.fork(handle)
  assert book.seat_parent(1, other, B, book.free()) is None
  assert other.slot is not None


def test_release_frees_the_slot():
  book = book_lib.Book(1)
  handle = conversation(book)
  other = book.fork(handle)
  book.release(handle)
  assert numbers(book.free()) == []
  book.release(other)
  assert numbers(book.free()) == [0]
  book.release(other)  # twice is once


def test_room_is_made_by_the_one_left_alone_longest_and_not_by_those_that_are_wanted():
  book = book_lib.Book(3)
  old, middle, new = conversation(book, 0), conversation(book, 1), conversation(book, 2)
  assert book.make_room([old])
  assert middle.slot is None and old.slot == 0 and new.slot == 2
  assert book.make_room([old])
  assert new.slot is None
  book.request[1] = 7
  assert not book.make_room([old])  # something is live, so a slot comes free without that
  book.request[1] = None
  assert book.make_room([old]) and old.slot is None
  assert not book.make_room([])


def test_a_conversation_is_cut_to_what_it_shares():
  handle = book_lib.Handle(np.arange(6), cached=5, slot=0)
  assert list(handle.trim(np.array([0, 1, 2, 3, 9, 9]))) == [9, 9]
  assert list(handle.tokens) == [0, 1, 2, 3] and handle.cached == 4
  assert list(handle.trim(np.array([0, 1, 2, 3]))) == [3]  # one is read, to predict what follows
  assert list(handle.trim(np.array([5, 1]))) == [5, 1] and handle.cached == 0


def test_new_weights_end_all_caches():
  book = book_lib.Book(2)
  handle = conversation(book)
  book.forget()
  assert handle.slot is None and numbers(book.free()) == [0, 1]
  assert seat(book, 1, A).source == -1


def test_a_slot_that_goes_on_before_the_end_of_its_prompt_holds_it_no_longer():
  book = book_lib.Book(2)
  for cut, source in (((1, 2, 3, 7), 0), ((1, 2, 7), -1)):
    book.forget()
    slot = seat(book, 0, A, [0]).slot
    handle = book_lib.Handle(np.array([1, 2, 3, 9]), 4, slot)
    book.finish(slot, handle)
    tail = handle.trim(np.array(cut))
    assert book.seat_parent(1, handle, tail, book.free()).start == len(cut) - 1
    assert seat(book, 2, A, [1]).source == source
    book.finish(0, None)
    book.finish(1, None)


def test_slots_of_one_prompt():
  book = book_lib.Book(6)
  for i, prompt in enumerate((A, B, A, A)):
    seat(book, i, prompt, [i])
  book.finish(2, None)
  assert book.alike(range(6)) == [(3, [0, 3]), (2, [1])]
  assert book.alike([3, 1, 0]) == [(3, [0, 2]), (2, [1])]
  assert book.alike([2, 5]) == []


def test_what_slots_share_is_told_in_whole_segments():
  prompts = [(70, [0, 2, 4, 6, 8]), (200, list(range(10, 30))), (64, [31, 30, 9, 7]),
             (500, [1, 3, 5]), (63, [32, 33, 34, 35])]
  told = orders_lib.shared([prompts, []], 40, (64, 64, 64, 64, 256))
  assert told.length_B.shape == (80,) and told.rows_GR.shape == (20, 16)
  length = np.zeros(80, int)
  length[10:26], length[26:30], length[[0, 2, 4, 6, 8, 31, 30, 9, 7]] = 192, 192, 64
  np.testing.assert_array_equal(told.length_B, length)  # 3 are too few, 63 tokens fill nothing
  groups = [[r for r in row if r < 40] for row in told.rows_GR.tolist()]
  assert groups[:4] == [list(range(10, 26)), list(range(26, 30)), [0, 2, 4, 6, 8], [31, 30, 9, 7]]
  assert not any(groups[4:])
  assert told.count_N.reshape(2, 5).tolist() == [[4, 2, 2, 0, 0], [0] * 5]
