// SPDX-License-Identifier: Apache-2.0
// What a host hands to the operations of a model is checked, in the same words on every backend.
#include "support/argument_check.hpp"
#include "support/backends.hpp"

using namespace spectx;
using namespace spectx::test;

TEST_CASE("wrong arguments of products and norms are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const ArgumentCase c(*b.backend);
  ArgumentCheck<EmbedArgs>(*b.backend, &Backend::embed, "embed",
                           {.table = c.matrix(8, 4), .tokens = c.ints(2), .out = c.matrix(2, 4)})
      .tensors({&EmbedArgs::table, &EmbedArgs::out})
      .invalid({[](EmbedArgs& a) { a.out.shape[1] = 3; }, [](EmbedArgs& a) { a.tokens.size = 1; },
                [](EmbedArgs& a) { a.tokens.data = nullptr; },
                [](EmbedArgs& a) {
                  a.row_index = {a.tokens.data, 1};
                },
                [](EmbedArgs& a) {
                  a.row_index = {nullptr, 2};
                },
                [](EmbedArgs& a) { a.out.strides[0] = 3; }});
  ArgumentCheck<MatmulArgs>(*b.backend, &Backend::matmul, "matmul",
                            {.x = c.matrix(2, 4), .w = c.matrix(3, 4), .out = c.matrix(2, 3)})
      .tensors({&MatmulArgs::x, &MatmulArgs::w, &MatmulArgs::out})
      .invalid({[](MatmulArgs& a) { a.w.shape[1] = 3; }, [](MatmulArgs& a) { a.out.shape[0] = 1; },
                [](MatmulArgs& a) { a.out.shape[1] = 4; }, [](MatmulArgs& a) { a.x.shape[1] = 5; },
                [](MatmulArgs& a) { a.out.dtype = DType::bf16; },
                [](MatmulArgs& a) { a.x.strides[0] = 0; },
                [](MatmulArgs& a) { a.w.strides[0] = 3; }})
      .unsupported({[](MatmulArgs& a) { a.w.dtype = DType::i8; },
                    [](MatmulArgs& a) { a.w.dtype = DType::f8_e4m3; },
                    [](MatmulArgs& a) { a.x.dtype = a.out.dtype = DType::f16; },
                    [](MatmulArgs& a) { a.x.dtype = a.out.dtype = DType::i32; }});
  const RmsNormArgs norm{.x = c.heads(2, 2, 4), .weight = c.vector(4), .out = c.heads(2, 2, 4)};
  ArgumentCheck<RmsNormArgs>(*b.backend, &Backend::rms_norm, "rms_norm", norm)
      .tensors({&RmsNormArgs::x, &RmsNormArgs::weight, &RmsNormArgs::out})
      .invalid({[](RmsNormArgs& a) { a.weight.shape[0] = 3; },
                [](RmsNormArgs& a) { a.out.shape[1] = 1; },
                [](RmsNormArgs& a) { a.x.rank = a.out.rank = 2; },
                [](RmsNormArgs& a) { a.out.dtype = DType::f16; }})
      .unsupported({[](RmsNormArgs& a) { a.weight.dtype = DType::i8; },
                    [](RmsNormArgs& a) { a.x.dtype = a.out.dtype = DType::i32; }});
}

TEST_CASE("wrong arguments of what works row by row are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  const ArgumentCase c(*b.backend);
  ArgumentCheck<RopeArgs>(
      *b.backend, &Backend::rope, "rope",
      {.x = c.heads(2, 2, 8), .position = c.ints(2), .frequency = c.frequencies(4)})
      .tensors({&RopeArgs::x})
      .invalid({[](RopeArgs& a) { a.frequency.size = 3; },
                [](RopeArgs& a) { a.frequency.data = nullptr; },
                [](RopeArgs& a) { a.position.size = 1; }, [](RopeArgs& a) { a.x.shape[2] = 7; },
                [](RopeArgs& a) { a.x.strides[1] = 0; },
                [](RopeArgs& a) {
                  a.row_index = {a.position.data, 1};
                }});
  ArgumentCheck<SwigluArgs>(*b.backend, &Backend::swiglu, "swiglu",
                            {.gate = c.matrix(2, 4), .up = c.matrix(2, 4), .out = c.matrix(2, 4)})
      .tensors({&SwigluArgs::gate, &SwigluArgs::up, &SwigluArgs::out})
      .invalid({[](SwigluArgs& a) { a.up.shape[1] = 3; },
                [](SwigluArgs& a) { a.gate.shape[0] = 1; },
                [](SwigluArgs& a) { a.out.strides[0] = 0; }});
  ArgumentCheck<AddArgs>(
      *b.backend, &Backend::add, "add",
      {.a = c.matrix(2, 4), .b = repeated(c.vector(4), 2), .out = c.matrix(2, 4)})
      .tensors({&AddArgs::a, &AddArgs::out})
      .invalid({[](AddArgs& a) { a.b.shape[0] = 1; }, [](AddArgs& a) { a.b.data = nullptr; },
                [](AddArgs& a) { a.b.dtype = DType::bf16; },
                [](AddArgs& a) { a.out.strides[0] = 0; }});
  ArgumentCheck<ArgmaxArgs>(*b.backend, &Backend::argmax, "argmax",
                            {.logits = c.matrix(2, 8), .out = c.ints(2)})
      .tensors({&ArgmaxArgs::logits})
      .invalid({[](ArgmaxArgs& a) { a.out.size = 1; }, [](ArgmaxArgs& a) { a.out.data = nullptr; },
                [](ArgmaxArgs& a) { a.logits.shape[1] = 0; }});
  const Stream stream = b.backend->make_stream();
  std::byte bytes[4] = {};
  const auto refuses = [](auto&& call) { REQUIRE(refusal(call) == "invalid Backend"); };
  refuses([&] { b.backend->copy(nullptr, bytes, 4, stream); });
  refuses([&] { b.backend->copy(bytes, nullptr, 4, stream); });
  refuses([&] { b.backend->copy(bytes, bytes, -1, stream); });
  refuses([&] { b.backend->fill(nullptr, 0, 4, stream); });
}

TEST_CASE("wrong arguments of what writes and reads rows are refused by name") {
  const NamedBackend b = GENERATE(from_range(backends()));
  CAPTURE(b.name);
  using C = ArgumentCase;
  const C c(*b.backend);
  const TensorView kv = c.heads(2, C::kHeads, C::kDim);
  const TensorView q = c.heads(2, C::kQueryHeads, C::kDim);
  ArgumentCheck<AppendRowsArgs>(*b.backend, &Backend::append_rows, "append_rows",
                                {.k = kv, .v = kv, .batch = &c.batch, .to = c.kv})
      .tensors({&AppendRowsArgs::k})
      .invalid({[](AppendRowsArgs& a) { a.v.shape[2] = 4; },
                [](AppendRowsArgs& a) { a.v.rank = 2; },
                [](AppendRowsArgs& a) { a.v.dtype = DType::f16; },
                [](AppendRowsArgs& a) { a.k.shape[1] = 1; },
                [](AppendRowsArgs& a) { a.k.shape[0] = a.v.shape[0] = 3; },
                [](AppendRowsArgs& a) {
                  a.row_index = {a.batch->item.data, 1};
                },
                [](AppendRowsArgs& a) { a.to.table = nullptr; },
                [](AppendRowsArgs& a) { a.to.page_rows = 0; },
                [](AppendRowsArgs& a) { a.to.row_stride = -1; },
                [](AppendRowsArgs& a) { a.max_length = -1; }})
      .unsupported({[](AppendRowsArgs& a) { a.to.dtype = DType::i8; },
                    [](AppendRowsArgs& a) { a.k.dtype = a.v.dtype = DType::i32; }});
  ArgumentCheck<AttendArgs>(*b.backend, &Backend::attend, "attend",
                            {.q = q, .kv = c.kv, .batch = &c.batch, .out = q})
      .tensors({&AttendArgs::q, &AttendArgs::out})
      .invalid({[](AttendArgs& a) { a.q.shape[0] = 1; }, [](AttendArgs& a) { a.out.shape[0] = 1; },
                [](AttendArgs& a) { a.q.shape[1] = 3; }, [](AttendArgs& a) { a.q.shape[2] = 4; },
                [](AttendArgs& a) { a.out.shape[2] = 4; },
                [](AttendArgs& a) { a.q.dtype = DType::bf16; },
                [](AttendArgs& a) { a.out.strides[1] = 0; },
                [](AttendArgs& a) { a.kv.table = nullptr; },
                [](AttendArgs& a) { a.kv.kv_heads = 0; }, [](AttendArgs& a) { a.kv.v_dim = 0; },
                [](AttendArgs& a) { a.kv.page_rows = 0; },
                [](AttendArgs& a) { a.kv.counts = a.batch->item.data; }})
      .unsupported({[](AttendArgs& a) { a.kv.dtype = DType::f8_e4m3; },
                    [](AttendArgs& a) { a.q.dtype = a.out.dtype = DType::i32; }});
}

TEST_CASE("activations of a half type are not supported on the CPU") {
  const auto backend = make_oracle();
  const ArgumentCase c(*backend);
  const TensorView half = c.matrix(2, 4, DType::bf16);
  const auto refuses = [](const char* name, auto&& call) {
    REQUIRE(refusal(call) == std::string("unsupported ") + name);
  };
  refuses("embed", [&] { backend->embed({c.matrix(8, 4), c.ints(2), {}, half}, {}); });
  refuses("matmul", [&] { backend->matmul({half, half, c.matrix(2, 2, DType::bf16)}, {}); });
  refuses("rms_norm", [&] { backend->rms_norm({half, c.vector(4), half}, {}); });
  refuses("swiglu", [&] { backend->swiglu({half, half, half}, {}); });
  refuses("add", [&] { backend->add({half, half, half}, {}); });
  refuses("argmax", [&] { backend->argmax({half, c.ints(2)}, {}); });
}
