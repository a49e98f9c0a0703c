// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

namespace spectx {

class Backend;

/// Non-owning handle of a backend's stream; of the CPU backend it is null, and work has run when
/// the call returns.
struct StreamView {
  void* handle = nullptr;
};

/// Non-owning handle of a backend's event.
struct EventView {
  void* handle = nullptr;
};

/// Owns a stream of `backend`, which must outlive it. Move-only.
class Stream {
 public:
  Stream(Backend& backend, void* handle) noexcept : backend_(&backend), handle_(handle) {}
  Stream(Stream&& other) noexcept
      : backend_(other.backend_), handle_(std::exchange(other.handle_, nullptr)) {}
  Stream& operator=(Stream&&) = delete;
  ~Stream();

  operator StreamView() const noexcept { return {handle_}; }

 private:
  Backend* backend_;
  void* handle_;
};

/// Owns an event of `backend`, which must outlive it. Move-only.
class Event {
 public:
  Event(Backend& backend, void* handle) noexcept : backend_(&backend), handle_(handle) {}
  Event(Event&& other) noexcept
      : backend_(other.backend_), handle_(std::exchange(other.handle_, nullptr)) {}
  Event& operator=(Event&&) = delete;
  ~Event();

  operator EventView() const noexcept { return {handle_}; }

 private:
  Backend* backend_;
  void* handle_;
};

}  // namespace spectx
