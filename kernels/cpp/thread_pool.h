// A few threads that share the tasks of one step. Threads start with the first use; one pool serves one caller.
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
  explicit ThreadPool(std::size_t threads) : threads_(threads) {}
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // The calling thread counts; thread numbers passed to tasks are below this.
  std::size_t threads() const { return threads_; }

  // Calls body(task, thread) once for every task below `tasks` and returns when all are done. `body` must not throw.
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
  void take_tasks(std::size_t thread);
  void work(std::size_t thread);

  const std::size_t threads_;
  bool started_ = false;
  std::vector<std::thread> workers_;
  Job job_;
  std::atomic<std::size_t> next_task_{0}, busy_{0};
  std::atomic<std::uint64_t> round_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable begin_, end_;
};

}  // namespace bitplan
