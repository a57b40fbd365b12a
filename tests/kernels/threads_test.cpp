// The pool of threads: each task once, results of one step seen by the next, sleep and waking, several pools at once.
// Exit code 1 and one line per mismatch. Built as all *_test.cpp, and with the thread sanitizer (see test_threads.py).
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "../../kernels/cpp/thread_pool.cpp"
#include "../../kernels/cpp/work_split.cpp"

namespace {

using namespace bitplan;
using std::chrono::microseconds;
using std::chrono::milliseconds;

std::atomic<int> failures{0};

void expect(bool good, const std::string& what) {
  if (!good && ++failures <= 40) std::printf("MISMATCH %s\n", what.c_str());
}

std::string name_of(std::size_t threads, std::size_t tasks) {
  return std::to_string(threads) + " threads, " + std::to_string(tasks) + " tasks";
}

// Plain memory throughout: a task that ran twice or a result that came late is a data race as well.
void test_every_task_runs_once(std::size_t threads) {
  ThreadPool pool(threads);
  for (const std::size_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
    for (int round = 0; round < 20; ++round) {
      std::vector<int> runs(tasks, 0);
      pool.run(tasks, [&](std::size_t task, std::size_t) { ++runs[task]; });
      for (const int count : runs) expect(count == 1, "a task did not run once: " + name_of(threads, tasks));
    }
  }
}

// Steps own scratch memory by thread number.
void test_a_thread_number_is_used_by_one_task_at_a_time(std::size_t threads) {
  ThreadPool pool(threads);
  std::vector<long> scratch(threads, 0);
  for (int round = 0; round < 100; ++round) {
    pool.run(50, [&](std::size_t, std::size_t thread) {
      expect(thread < threads, "a thread number is too large");
      ++scratch[thread];
    });
  }
  long sum = 0;
  for (const long count : scratch) sum += count;
  expect(sum == 5000, "two tasks shared a thread number: " + name_of(threads, 50));
}

void test_a_step_sees_the_last_one(std::size_t threads) {
  constexpr std::size_t kSize = 97;
  ThreadPool pool(threads);
  std::vector<std::uint32_t> now(kSize, 1), next(kSize), right(kSize, 1), right_next(kSize);
  for (int round = 0; round < 300; ++round) {
    pool.run(kSize, [&](std::size_t i, std::size_t) { next[i] = 3 * now[i] + now[(i + 40) % kSize]; });
    for (std::size_t i = 0; i < kSize; ++i) right_next[i] = 3 * right[i] + right[(i + 40) % kSize];
    std::swap(now, next);
    std::swap(right, right_next);
  }
  expect(now == right, "a step did not see the last one's results: " + name_of(threads, kSize));
}

// Pauses on both sides of the time for which idle threads spin: a lost wake-up would hang.
void test_pauses(std::size_t threads) {
  ThreadPool pool(threads);
  long done = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<int> runs(4, 0);
    pool.run(4, [&](std::size_t task, std::size_t) {
      if (task == 3 && round % 50 == 0) std::this_thread::sleep_for(milliseconds(1));  // the caller falls asleep too
      runs[task] = 1;
    });
    for (const int count : runs) done += count;
    std::this_thread::sleep_for(microseconds(round % 10 * 15));
  }
  expect(done == 800, "tasks were lost between pauses: " + name_of(threads, 4));
}

void test_idle_threads_sleep() {
  ThreadPool pool(std::max(2u, std::thread::hardware_concurrency()));
  pool.run(100, [](std::size_t, std::size_t) {});
  std::this_thread::sleep_for(milliseconds(20));
  const std::clock_t before = std::clock();  // of all threads
  std::this_thread::sleep_for(milliseconds(200));
  const double busy = 1000.0 * double(std::clock() - before) / CLOCKS_PER_SEC;
  expect(busy < 50, "idle threads took " + std::to_string(busy) + " of 200 ms");
}

// A task waits for one that only another thread can run.
void test_sleeping_threads_are_woken() {
  ThreadPool pool(2);
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> met{0};
    pool.run(2, [&](std::size_t, std::size_t) {
      ++met;
      while (met < 2) std::this_thread::yield();
    });
    std::this_thread::sleep_for(milliseconds(3));
  }
}

void test_pools_at_once() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([] {
      ThreadPool pool(3);
      std::vector<int> runs(16, 0);
      for (int round = 0; round < 200; ++round) pool.run(16, [&](std::size_t task, std::size_t) { ++runs[task]; });
      for (const int count : runs) expect(count == 200, "pools at once disturb each other");
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void test_a_pool_may_end_at_any_time() {
  for (int round = 0; round < 30; ++round) {
    ThreadPool pool(4);
    if (round % 3 == 0) continue;
    pool.run(8, [](std::size_t, std::size_t) {});
    if (round % 3 == 2) std::this_thread::sleep_for(microseconds(10 * round));
  }
}

// Parts of a layer's work cover every row of every unit once.
void test_shared_work_is_a_partition(std::size_t threads) {
  ThreadPool pool(threads);
  for (const std::size_t rows : {1, 5, 49, 196, 3136}) {
    for (const std::size_t units : {1, 2, 3, 8, 31}) {
      std::vector<int> seen(rows * units, 0);
      share_work(pool, rows, units, 4, [&](Span part, Span channels, std::size_t) {
        for (std::size_t row = part.begin; row < part.end; ++row)
          for (std::size_t unit = channels.begin; unit < channels.end; ++unit) ++seen[row * units + unit];
      });
      for (const int count : seen) expect(count == 1, "work was not shared out once: " + name_of(threads, rows));
    }
  }
}

}  // namespace

int main() {
  for (const std::size_t threads : {1, 2, 3, 8, 33}) {
    test_every_task_runs_once(threads);
    test_a_thread_number_is_used_by_one_task_at_a_time(threads);
    test_a_step_sees_the_last_one(threads);
    test_pauses(threads);
    test_shared_work_is_a_partition(threads);
  }
  test_idle_threads_sleep();
  test_sleeping_threads_are_woken();
  test_pools_at_once();
  test_a_pool_may_end_at_any_time();
  std::printf("%d mismatches\n", failures.load());
  return failures != 0;
}
