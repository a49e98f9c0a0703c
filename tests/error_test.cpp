// SPDX-License-Identifier: Apache-2.0
#include "spectx/error.hpp"

#include "catch.hpp"
#include "spectx/cuda/backend.hpp"

using namespace spectx;

namespace {

template <class Thrown>
int code_of(const Thrown& thrown) {
  try {
    throw thrown;
  } catch (const Error& error) {
    return static_cast<int>(error.code());
  }
}

}  // namespace

TEST_CASE("every error has its number, which callers in other languages have compiled in") {
  CHECK(code_of(Error("")) == 1);
  CHECK(code_of(InvalidArgument("")) == 2);
  CHECK(code_of(Unsupported("")) == 3);
  CHECK(code_of(FileError("")) == 4);
  CHECK(code_of(OutOfMemory(Tier::host, 2, 1)) == 5);
  CHECK(code_of(cu::CudaError("")) == 6);
}

TEST_CASE("out of memory names the tier and the bytes") {
  const OutOfMemory error(Tier::lender, 20, 10, " of 30");
  CHECK(std::string(error.what()) == "out of lent memory: 20 bytes asked, 10 bytes free of 30");
  CHECK(error.tier() == Tier::lender);
  CHECK(error.bytes_asked() == 20);
  CHECK(error.bytes_free() == 10);
}

TEST_CASE("expects throws its message, and nothing where all is well") {
  REQUIRE_NOTHROW(expects(true, "not said"));
  REQUIRE_THROWS_WITH(expects(false, "Class::call: x must be y"), "Class::call: x must be y");
}
