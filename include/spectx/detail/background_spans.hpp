// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>

#include "spectx/backend.hpp"
#include "spectx/detail/step_trace.hpp"

namespace spectx::detail {

/// When streams beside the steps' work, for the trace. Does nothing and holds nothing where nobody
/// takes device spans.
class BackgroundSpans {
 public:
  BackgroundSpans(Backend& backend, MemoryResource& host, StepTrace& trace)
      : backend_(backend), trace_(trace) {
    if (backend.trace().device == nullptr) return;
    stamps_ = Buffer(host, kSpans * 2 * index_t{sizeof(std::uint64_t)});
    for (Span& span : spans_) span.done.emplace(backend.make_event());
  }

  /// What `stream` is given from here to end() is one span. `name` has static storage. Left out
  /// while so many others have not arrived.
  void begin(const char* name, TraceLane lane, StreamView stream) {
    current_ = -1;
    for (std::size_t i = 0; stamps_.bytes() > 0 && i < kSpans; ++i) {
      if (spans_[i].name == nullptr) current_ = static_cast<index_t>(i);
    }
    if (current_ < 0) return;
    Span& span = spans_[static_cast<std::size_t>(current_)];
    span.lane = lane;
    span.launch_ns = StepTrace::now_ns();
    backend_.stamp(stamps_of(current_), stream);
    open_ = name;
  }
  /// Not called where nothing came of it.
  void end(StreamView stream) {
    if (current_ < 0) return;
    Span& span = spans_[static_cast<std::size_t>(current_)];
    backend_.stamp(stamps_of(current_) + 1, stream);
    backend_.record(*span.done, stream);
    span.name = open_;
    current_ = -1;
  }
  /// Sends the spans that have ended to the trace.
  void send() {
    if (stamps_.bytes() == 0) return;
    for (std::size_t i = 0; i < kSpans; ++i) {
      Span& span = spans_[i];
      if (span.name == nullptr || !backend_.is_done(*span.done)) continue;
      const std::uint64_t* const at = stamps_of(static_cast<index_t>(i));
      trace_.write(span.name, span.lane, at[0], at[1], span.launch_ns);
      span.name = nullptr;
    }
  }

 private:
  static constexpr std::size_t kSpans = 16;

  struct Span {
    const char* name = nullptr;  // null: free
    TraceLane lane = TraceLane::compute;
    std::int64_t launch_ns = 0;
    std::optional<Event> done;
  };

  std::uint64_t* stamps_of(index_t span) const {
    return reinterpret_cast<std::uint64_t*>(stamps_.data()) + 2 * span;
  }

  Backend& backend_;
  StepTrace& trace_;
  Buffer stamps_;  // [kSpans, 2] host
  std::array<Span, kSpans> spans_;
  index_t current_ = -1;  // the span between begin() and end()
  const char* open_ = nullptr;
};

}  // namespace spectx::detail
