// SPDX-License-Identifier: Apache-2.0
// What a row loses in a host tier of a smaller type.
#include "catch.hpp"
#include "support/backends.hpp"
#include "support/pool_data.hpp"

using namespace spectx;
using namespace spectx::test;

namespace {

using Kind = RowPlace::Kind;
using Dims = std::vector<index_t>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Rows of one group of request 0, from its token pages to the host and back into its slots: token
/// n is in slot n of head 0.
struct RoundTrip {
  RoundTrip(Backend& b, DType rows, DType host, index_t dim)
      : backend(b),
        pool(b, {.requests = 1,
                 .groups = 1,
                 .group_layers = 1,
                 .layers = 1,
                 .kv_heads = 1,
                 .k_dim = dim,
                 .v_dim = dim,
                 .slots = 64,
                 .dtype = rows,
                 .host_dtype = host}) {
    for (index_t n = 0; n < 64; ++n) pool.put(0, 0, n, n);
  }
  std::size_t token(index_t n) const { return pool.device_row(false, 0, 0, 0, n); }
  std::size_t slot(index_t n) const { return pool.device_row(true, 0, 0, 0, n); }
  void run() {
    pool.upload();
    const RowPlace tokens{Kind::tokens, pool.token_pages(0, 0)};
    const RowPlace host{Kind::host, pool.view().host_pages_of(0, 0)};
    const RowPlace slots{Kind::slots, pool.slot_pages(0, 0)};
    run_on(backend, [&](StreamView stream) {
      backend.move_rows({pool.view(), {0}, 0, tokens, host, 0, 64}, stream);
      backend.move_rows({pool.view(), {0}, 0, host, slots, 0, 64}, stream);
    });
    pool.download();
  }

  Backend& backend;
  PoolData pool;
};

/// Largest and smallest numbers of a type, as a power of two.
std::pair<int, int> exponents(DType dtype) {
  return dtype == DType::f16 ? std::pair{-24, 15} : std::pair{-126, 127};
}

/// HostRun's bound for an element of a part, and the rounding to the rows' type.
double bound(double x, double largest, DType rows, DType host) {
  const double unit = rows == DType::f32 ? 0x1p-24 : rows == DType::f16 ? 0x1p-11 : 0x1p-8;
  const double smallest = rows == DType::f16 ? 0x1p-25 : 0x1p-127;
  if (host == DType::f8_e4m3) return std::max({0x1p-4 * x, 0x1p-17 * largest, smallest});
  return (1 + 0x1p-14) * largest / 254 + unit * x + smallest;
}

}  // namespace

TEST_CASE("an element that was in the host tier is off by no more than HostRun says") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [rows, host] = GENERATE(from_range(host_types()));
  const index_t dim = GENERATE(from_range(values<index_t>({6, 64, 128}, {6, 128})));
  if (rows == host) return;
  CAPTURE(b.name, dtype_name(rows), dtype_name(host), dim);
  RoundTrip trip(*b.backend, rows, host, dim);
  Random random(3);
  const auto [low, high] = exponents(rows);
  for (int round = 0; round < unless_slow(8, 1); ++round) {
    for (index_t n = 0; n < 64; ++n) {
      for (const index_t first : {index_t{0}, dim}) {
        // From one end of the type to the other; up to 2^-2 of the largest number, and the number.
        const int exponent = low + static_cast<int>(random.below(high - low - 2));
        std::vector<float> part = random.normal(dim, std::ldexp(0.25F, exponent));
        for (float& x : part) x = std::ldexp(x, -static_cast<int>(random.below(n % 3 * 6 + 1)));
        if (n == 0) part[at(n)] = static_cast<float>(rows == DType::f16 ? 65504 : 0x1.fep127);
        trip.pool.put_part(trip.token(n), first, part);
      }
    }
    trip.run();
    double worst = 0;
    for (index_t n = 0; n < 64; ++n) {
      for (const index_t first : {index_t{0}, dim}) {
        const std::vector<float> before = trip.pool.part_at(trip.token(n), first, dim);
        const std::vector<float> after = trip.pool.part_at(trip.slot(n), first, dim);
        for (index_t i = 0; i < dim; ++i) {
          const double x = static_cast<double>(before[at(i)]);
          const double error = std::abs(static_cast<double>(after[at(i)]) - x);
          worst = std::max(worst, error / bound(std::abs(x), largest_of(before), rows, host));
        }
        trip.pool.put_part(trip.token(n), first, after);
      }
    }
    REQUIRE(worst <= 1);
    trip.run();  // and what came back is not lost again
    for (index_t n = 0; n < 64; ++n) {
      const std::vector<float> once = trip.pool.part_at(trip.token(n), 0, 2 * dim);
      REQUIRE((trip.pool.part_at(trip.slot(n), 0, 2 * dim) == once));
    }
  }
}

TEST_CASE("a part that is not finite comes back as NaN, and its neighbours as they are") {
  const NamedBackend b = GENERATE(from_range(backends()));
  const auto [types, bad, dim] = GENERATE(from_range(
      combinations(host_types(), std::vector{kInfinity, -kInfinity, kNaN}, Dims{6, 64})));
  const auto [rows, host] = types;
  if (rows == host) return;
  CAPTURE(b.name, dtype_name(rows), dtype_name(host), bad, dim);
  RoundTrip trip(*b.backend, rows, host, dim);
  const std::vector<float> good(at(dim), 1);
  std::vector<float> part = good;
  part[at(dim - 2)] = bad;
  for (index_t n = 0; n < 64; ++n) {
    trip.pool.put_part(trip.token(n), 0, n % 2 == 0 ? part : good);
    trip.pool.put_part(trip.token(n), dim, n % 3 == 0 ? part : good);
  }
  trip.run();
  const std::vector<float> ones = through_host(good, rows, host);
  for (index_t n = 0; n < 64; ++n) {
    CAPTURE(n);
    const auto is_nan = [](float x) { return std::isnan(x); };
    for (const auto& [first, is_bad] : {std::pair{index_t{0}, n % 2 == 0}, {dim, n % 3 == 0}}) {
      const std::vector<float> after = trip.pool.part_at(trip.slot(n), first, dim);
      REQUIRE((is_bad ? std::all_of(after.begin(), after.end(), is_nan) : after == ones));
    }
  }
}
