#include "thread_pool.h"

#include <system_error>

namespace bitplan {
namespace {

// About 20 microseconds: longer than the pause between two steps, shorter than anybody notices.
constexpr int kSpins = 600;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

template <typename Condition>
bool spin_until(const Condition& condition) {
  for (int i = 0; i < kSpins; ++i) {
    if (condition()) return true;
    relax();
  }
  return condition();
}

}  // namespace

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
  {
    const std::lock_guard lock(mutex_);
    job_ = job;
    next_task_.store(0, std::memory_order_relaxed);
    busy_.store(workers_.size(), std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
  }
  begin_.notify_all();
  take_tasks(0);
  const auto idle = [this] { return busy_.load(std::memory_order_acquire) == 0; };
  if (spin_until(idle)) return;
  std::unique_lock lock(mutex_);
  end_.wait(lock, idle);
}

void ThreadPool::take_tasks(std::size_t thread) {
  for (;;) {
    const std::size_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= job_.tasks) return;
    job_.call(job_.body, task, thread);
  }
}

void ThreadPool::work(std::size_t thread) {
  std::uint64_t seen = 0;
  for (;;) {
    const auto called = [&] { return stop_ || round_.load(std::memory_order_acquire) != seen; };
    if (!spin_until(called)) {
      std::unique_lock lock(mutex_);
      begin_.wait(lock, called);
    }
    if (stop_) return;
    seen = round_.load(std::memory_order_acquire);
    take_tasks(thread);
    if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      const std::lock_guard lock(mutex_);
      end_.notify_one();
    }
  }
}

}  // namespace bitplan
