// A few threads that share the tasks of one step. Threads start with the first use; one pool serves one caller.
//
// The caller waits for tasks, never for threads: what a late thread has not begun, the others do. Idle threads spin for
// a moment, so that the next step finds them awake, and then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace bitplan {

class ThreadPool {
 public:
  explicit ThreadPool(std::size_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // The calling thread counts; thread numbers passed to tasks are below this.
  std::size_t threads() const { return threads_; }

  // Calls body(task, thread) once for every task below `tasks` and returns when all are done. `body` must not throw.
  // At most 2^31 - 1 tasks.
  template <typename Body>
  void run(std::size_t tasks, const Body& body) {
    if (threads_ == 1 || tasks <= 1) {
      for (std::size_t task = 0; task < tasks; ++task) body(task, std::size_t(0));
      return;
    }
    share({[](const void* data, std::size_t task, std::size_t thread) {
             (*static_cast<const Body*>(data))(task, thread);
           },
           &body, tasks});
  }

 private:
  struct Job {
    void (*call)(const void*, std::size_t, std::size_t) = nullptr;
    const void* body = nullptr;
    std::size_t tasks = 0;
  };

  void start();
  void share(const Job& job);
  void wake(std::size_t most);
  void take_tasks(std::size_t thread);
  void wait_for_tasks();
  void work(std::size_t thread);

  const std::size_t threads_;
  const bool spins_;  // not where threads outnumber processors
  bool started_ = false;
  std::vector<std::thread> workers_;
  Job job_;  // whoever has taken a task may read it: it stays until that task is done
  // Tasks that nobody has begun; tasks that are not done; at least as many workers as sleep and were not woken.
  alignas(64) std::atomic<std::uint32_t> untaken_{0};
  alignas(64) std::atomic<std::uint32_t> undone_{0};
  alignas(64) std::atomic<std::uint32_t> sleeping_{0};
  std::atomic<bool> caller_sleeps_{false}, stop_{false};
  std::mutex mutex_;
  std::condition_variable begin_, end_;
};

}  // namespace bitplan
