#include "thread_pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>

namespace bitplan {
namespace {

using Clock = std::chrono::steady_clock;

// About what it takes to wake a sleeping thread: nobody spins for more than twice the time that the best choice costs.
// Longer spins lose on a busy machine, whose scheduler hands the processor first to those that used it least.
constexpr std::chrono::microseconds kSpin{50};

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Whether the condition came true in time.
template <typename Condition>
bool spin_until(const Condition& condition) {
  constexpr int kLooksPerClock = 16;
  const Clock::time_point begin = Clock::now();
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (Clock::now() - begin < kSpin);
  return condition();
}

}  // namespace

ThreadPool::ThreadPool(std::size_t threads)
    : threads_(threads), spins_(threads > 1 && threads <= std::thread::hardware_concurrency()) {}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  begin_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Where the system refuses more threads the pool makes do with fewer: the results are the same.
void ThreadPool::start() {
  started_ = true;
  workers_.reserve(threads_ - 1);
  try {
    for (std::size_t thread = 1; thread < threads_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (const std::system_error&) {
  }
}

void ThreadPool::share(const Job& job) {
  if (!started_) start();
  job_ = job;
  undone_.store(std::uint32_t(job.tasks), std::memory_order_relaxed);
  untaken_.store(std::uint32_t(job.tasks), std::memory_order_seq_cst);
  wake(job.tasks - 1);
  take_tasks(0);
  wait_for_tasks();
}

// A worker counts itself as sleeping before it looks for tasks a last time, and tasks are there before the caller looks
// for sleepers: one of the two sees the other (sequentially consistent; the same holds for the caller's sleep).
void ThreadPool::wake(std::size_t most) {
  if (sleeping_.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard lock(mutex_);
  const std::size_t woken = std::min<std::size_t>(most, sleeping_);
  sleeping_ -= std::uint32_t(woken);
  for (std::size_t i = 0; i < woken; ++i) begin_.notify_one();
}

void ThreadPool::take_tasks(std::size_t thread) {
  std::uint32_t untaken = untaken_.load(std::memory_order_relaxed);
  while (untaken > 0) {
    if (!untaken_.compare_exchange_weak(untaken, untaken - 1, std::memory_order_acquire, std::memory_order_relaxed))
      continue;
    job_.call(job_.body, job_.tasks - untaken, thread);
    if (undone_.fetch_sub(1, std::memory_order_seq_cst) == 1 && thread != 0 && caller_sleeps_.load()) {
      const std::lock_guard lock(mutex_);
      end_.notify_one();
    }
    untaken = untaken_.load(std::memory_order_relaxed);
  }
}

void ThreadPool::wait_for_tasks() {
  const auto done = [this] { return undone_.load(std::memory_order_seq_cst) == 0; };
  if (spins_ ? spin_until(done) : done()) return;
  std::unique_lock lock(mutex_);
  caller_sleeps_.store(true);
  end_.wait(lock, done);
  caller_sleeps_.store(false);
}

// A worker that wakes too late for a step spins again: the next step is near.
void ThreadPool::work(std::size_t thread) {
  const auto called = [this] { return stop_.load() || untaken_.load(std::memory_order_seq_cst) > 0; };
  for (;;) {
    if (!(spins_ ? spin_until(called) : called())) {
      std::unique_lock lock(mutex_);
      ++sleeping_;
      if (called())
        --sleeping_;
      else
        begin_.wait(lock);
    }
    if (stop_) return;
    take_tasks(thread);
  }
}

}  // namespace bitplan
