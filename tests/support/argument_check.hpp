// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>
#include <vector>

#include "argument_case.hpp"
#include "catch.hpp"

namespace spectx::test {

/// Calls an operation with arguments that are right, then with each thing spoiled, and expects that
/// each is refused by the operation's name and nothing has run.
template <class Args>
class ArgumentCheck {
 public:
  using Operation = void (Backend::*)(const Args&, StreamView);
  using Spoils = std::vector<void (*)(Args&)>;

  ArgumentCheck(Backend& backend, Operation operation, const char* name, const Args& right)
      : backend_(backend),
        stream_(backend.make_stream()),
        call_(operation),
        name_(name),
        right_(right) {
    CAPTURE(name_);
    REQUIRE(outcome(right_).empty());
    if constexpr (requires { right.batch; }) spoil_batch();
  }
  ~ArgumentCheck() { backend_.synchronize(stream_); }

  ArgumentCheck& invalid(const Spoils& spoils) { return all(spoils, "invalid "); }
  ArgumentCheck& unsupported(const Spoils& spoils) { return all(spoils, "unsupported "); }

  /// What no tensor may be, whatever the operation.
  ArgumentCheck& tensors(const std::vector<TensorView Args::*>& members) {
    for (std::size_t i = 0; i < members.size(); ++i) {
      for (int spoil = 0; spoil < 8; ++spoil) {
        CAPTURE(name_, i, spoil);
        Args args = right_;
        spoil_tensor(args.*members[i], spoil);
        REQUIRE(outcome(args) == "invalid " + name_);
      }
      for (const DType dtype : {DType::i32, DType::i8, static_cast<DType>(99)}) {
        CAPTURE(name_, i, static_cast<int>(dtype));
        Args args = right_;
        (args.*members[i]).dtype = dtype;
        const std::string refused = outcome(args);
        REQUIRE((refused == "invalid " + name_ || refused == "unsupported " + name_));
      }
    }
    return *this;
  }

 private:
  static void spoil_tensor(TensorView& t, int how) {
    const auto last = static_cast<std::size_t>(t.rank - 1);
    switch (how) {
      case 0:
        t.data = nullptr;
        break;
      case 1:
        t.data = static_cast<std::byte*>(t.data) + 1;
        break;
      case 2:
        t.rank = 0;
        break;
      case 3:
        t.rank = 4;
        break;
      case 4:
        t.shape[0] = -1;
        break;
      case 5:
        t.shape[0] = index_t{1} << 40;
        break;
      case 6:
        t.strides[last] = 2;
        break;
      default:
        t.strides[0] = t.rank == 1 ? -1 : -t.strides[0];
    }
  }
  void spoil_batch() {
    Args args = right_;
    args.batch = nullptr;
    REQUIRE(outcome(args) == "invalid " + name_);
    Batch batch = *right_.batch;
    args.batch = &batch;
    for (auto array : {&Batch::item, &Batch::position, &Batch::request, &Batch::row_begin,
                       &Batch::length, &Batch::selects, &Batch::lead_begin}) {
      const Array<const std::int32_t> whole = batch.*array;
      (batch.*array).size -= 1;
      REQUIRE(outcome(args) == "invalid " + name_);
      batch.*array = {nullptr, whole.size};
      REQUIRE(outcome(args) == "invalid " + name_);
      batch.*array = whole;
    }
    REQUIRE(outcome(args).empty());
  }
  ArgumentCheck& all(const Spoils& spoils, const char* how) {
    for (std::size_t i = 0; i < spoils.size(); ++i) {
      CAPTURE(name_, how, i);
      Args args = right_;
      spoils[i](args);
      REQUIRE(outcome(args) == how + name_);
    }
    return *this;
  }
  std::string outcome(const Args& args) const {
    return refusal([&] { (backend_.*call_)(args, stream_); });
  }

  Backend& backend_;
  Stream stream_;
  Operation call_;
  std::string name_;
  Args right_;
};

}  // namespace spectx::test
