// SPDX-License-Identifier: Apache-2.0
#include "head_fit.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "file_error.hpp"

namespace spectx::io {
namespace {

std::string dimensions(const std::vector<index_t>& shape) {
  std::string text = "[";
  for (const index_t n : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "]";
}

/// Collects what does not fit while it finds out how the file's tensors make a head.
class Fitter {
 public:
  Fitter(const HeadTensors& file, const ModelShape& target, const HeadOptions& options)
      : file_(file), spec_(file.spec()), names_(file.names()), target_(target), options_(options) {
    fit_.target = spec_.target;
    fit_.notes = spec_.notes;
    fit_.weights.reduce = spec_.reduce;
  }

  HeadFit fit(TensorView embeddings) {
    read_sizes();
    read_layers();
    read_rope();
    add_matrices();
    add_feature_norm();
    add_optional_vectors();
    add_embeddings(embeddings);
    check_target();
    return std::move(fit_);
  }
  const std::string& misfits() const noexcept { return misfits_; }

 private:
  void misfit(const std::string& what) { misfits_ += (misfits_.empty() ? "" : "; ") + what; }
  void note(const std::string& what) { fit_.notes.push_back(what); }

  /// A dimension of a matrix of the file, 0 if that is missing or no matrix.
  index_t extent(const std::string& name, std::size_t dimension) const {
    const auto* const shape = file_.shape(name);
    return shape == nullptr || shape->size() != 2 ? 0 : (*shape)[dimension];
  }

  /// The tensors' sizes, told apart by the number of query heads.
  void read_sizes() {
    HeadShape& s = fit_.weights.shape;
    const index_t query_rows = extent(names_.q_proj, 0);
    const index_t key_rows = extent(names_.k_proj, 0);
    s.query_heads = spec_.query_heads;
    s.k_dim = query_rows / s.query_heads;
    if (s.k_dim == 0 || query_rows % s.query_heads != 0 || s.k_dim % 2 != 0) {
      misfit(names_.q_proj + " has " + std::to_string(query_rows) + " rows: no even number for " +
             (query_rows % s.query_heads == 0 ? "each of " : "") + std::to_string(s.query_heads) +
             " query heads");
    }
    if (spec_.k_dim && *spec_.k_dim != s.k_dim) {
      const std::string what = "head_dim is said to be " + std::to_string(*spec_.k_dim) + ", but " +
                               names_.q_proj + " has " + std::to_string(s.k_dim);
      if (spec_.has_sizes_of_tensors) {
        misfit(what);
      } else {
        note(what);
      }
    }
    s.k_dim = std::max<index_t>(s.k_dim, 1);
    s.kv_heads = std::max<index_t>(key_rows / s.k_dim, 1);
    if (spec_.kv_heads && *spec_.kv_heads != s.kv_heads) {
      misfit(names_.k_proj + " has rows for " + std::to_string(s.kv_heads) + " KV heads, not " +
             std::to_string(*spec_.kv_heads));
    }
    if (s.query_heads % s.kv_heads != 0) {
      misfit(std::to_string(s.query_heads) + " query heads are no multiple of " +
             std::to_string(s.kv_heads) + " KV heads");
    }
    // A width of its own needs embeddings of its own.
    const index_t width = extent(names_.fc, 0);
    constexpr index_t kMost = index_t{1} << 20;  // products stay far from overflow
    const bool is_for_target = spec_.target_hidden.value_or(target_.hidden) == target_.hidden;
    const bool is_own = is_for_target && width != target_.hidden && width > 0 && width <= kMost &&
                        extent(names_.embeddings, 1) == width;
    s.hidden = is_own ? width : 0;
    width_ = s.width(target_);
  }

  void read_layers() {
    auto& layers = fit_.weights.feature_layers;
    layers = options_.feature_layers.empty() ? spec_.feature_layers : options_.feature_layers;
    const index_t n = target_.layers;
    if (layers.empty()) {
      layers = {2, n / 2, n - 3};
      note("no layer ids: by default layers " + dimensions(layers) + " are tapped");
    }
    num_features_ = static_cast<index_t>(layers.size());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (layers[i] >= n || layers[i] < 0) {
        misfit("feature layer " + std::to_string(layers[i] - 1) +
               " (counted from 0, its output), but of the model's " + std::to_string(n) +
               " layers " + std::to_string(n - 2) + " is the last that can be tapped");
      } else if (i > 0 && layers[i] <= layers[i - 1]) {
        misfit("feature layers " + dimensions(layers) + " do not ascend");
        break;
      }
    }
  }

  void read_rope() {
    HeadWeights& w = fit_.weights;
    w.rope = options_.rope.value_or(spec_.rope);
    if (options_.rope_theta) w.rope.theta = *options_.rope_theta;
    if (!options_.rope) w.rope_divisors = spec_.rope_divisors;
    w.norm_eps = spec_.norm_eps;
    const auto divisors = static_cast<index_t>(w.rope_divisors.size());
    if (divisors != 0 && divisors != w.shape.k_dim / 2) {
      misfit("rope_freqs.weight has " + std::to_string(divisors) + " numbers, needed " +
             std::to_string(w.shape.k_dim / 2));
    }
  }

  void add(HeadPart part) {
    const auto count = static_cast<index_t>(part.names.size());
    std::vector<index_t> needed = {part.rows / count};
    if (part.cols > 0) needed.push_back(part.cols);
    for (const std::string& name : part.names) {
      const auto* const shape = file_.shape(name);
      if (shape == nullptr) {
        misfit(name + " is missing");
      } else if (*shape != needed) {
        misfit(name + " is " + dimensions(*shape) + ", needed " + dimensions(needed));
      }
    }
    fit_.parts.push_back(std::move(part));
  }

  void add_matrices() {
    const HeadShape& s = fit_.weights.shape;
    const index_t interleaved = spec_.has_interleaved_rows ? 1 : 0;
    using W = HeadWeights;
    add({&W::fc, {names_.fc}, width_, num_features_ * target_.hidden});
    add({&W::input_norm, {names_.input_norm}, width_});
    add({&W::hidden_norm, {names_.hidden_norm}, width_});
    add({&W::q_proj,
         {names_.q_proj},
         s.query_heads * s.k_dim,
         2 * width_,
         interleaved * s.query_heads});
    add({&W::k_proj, {names_.k_proj}, s.kv_heads * s.k_dim, 2 * width_, interleaved * s.kv_heads});
  }

  /// Whether a tensor that some heads have is there, and the config agrees.
  bool is_there(const std::string& name, std::optional<bool> said, const char* key) {
    const bool is = !name.empty() && file_.has(name);
    if (said && *said != is) {
      misfit(std::string(key) + " is " + (*said ? "true" : "false") + ", but " +
             (name.empty() ? "its tensor" : name) + (is ? " is there" : " is missing"));
    }
    return is;
  }

  void add_feature_norm() {
    const std::string first =
        names_.each_norm_begin.empty() ? "" : names_.each_norm_begin + "0" + names_.each_norm_end;
    const bool is_joint = is_there(names_.joint_norm, spec_.has_joint_norm, "norm_before_fc");
    const bool is_each = is_there(first, spec_.has_each_norm, "fc_norm");
    if (is_joint && is_each) misfit(names_.joint_norm + " and " + first + " exclude each other");
    if (!is_joint && !is_each) return;
    HeadPart part{
        .to = &HeadWeights::feature_norm, .names = {}, .rows = num_features_ * target_.hidden};
    if (is_joint) {
      part.names = {names_.joint_norm};
    } else {
      for (index_t i = 0; i < num_features_; ++i) {
        part.names.push_back(names_.each_norm_begin + std::to_string(i) + names_.each_norm_end);
      }
    }
    fit_.weights.shape.normed_features = is_joint ? num_features_ : 1;
    add(std::move(part));
  }

  void add_optional_vectors() {
    const HeadShape& s = fit_.weights.shape;
    using W = HeadWeights;
    if (is_there(names_.fc_bias, spec_.has_fc_bias, "bias")) {
      add({&W::fc_bias, {names_.fc_bias}, width_, 0, 0, /*is_bias=*/true});
    }
    if (is_there(names_.q_bias, spec_.has_qk_biases, "attention_bias")) {
      add({&W::q_bias, {names_.q_bias}, s.query_heads * s.k_dim, 0, 0, true});
    }
    if (is_there(names_.k_bias, spec_.has_qk_biases, "attention_bias")) {
      add({&W::k_bias, {names_.k_bias}, s.kv_heads * s.k_dim, 0, 0, true});
    }
    const bool has_norms = file_.has(names_.q_norm) || file_.has(names_.k_norm);
    if (!has_norms) return;
    add({&W::q_norm, {names_.q_norm}, s.k_dim});
    add({&W::k_norm, {names_.k_norm}, s.k_dim});
  }

  void add_embeddings(TensorView embeddings) {
    const bool is_there = file_.has(names_.embeddings);
    const bool is_own = fit_.weights.shape.hidden != 0;
    if (is_own || (is_there && spec_.prefers_own_embeddings)) {
      add({&HeadWeights::embeddings, {names_.embeddings}, target_.vocabulary, width_});
      return;
    }
    if (is_there) note(names_.embeddings + " is left out: the model's own embeddings serve");
    fit_.weights.embeddings = embeddings;
  }

  void check_target() {
    if (spec_.target_hidden && *spec_.target_hidden != target_.hidden) {
      misfit("made for a model of hidden size " + std::to_string(*spec_.target_hidden));
    }
    if (spec_.vocabulary && *spec_.vocabulary != target_.vocabulary) {
      misfit("made for a vocabulary of " + std::to_string(*spec_.vocabulary));
    }
  }

  const HeadTensors& file_;
  const HeadSpec& spec_;
  const HeadNames& names_;
  const ModelShape& target_;
  const HeadOptions& options_;
  HeadFit fit_;
  index_t width_ = 0;
  index_t num_features_ = 0;
  std::string misfits_;
};

}  // namespace

HeadFit fit_head(const HeadTensors& file, const ModelShape& target, TensorView embeddings,
                 const HeadOptions& options) {
  Fitter fitter(file, target, options);
  HeadFit fit = fitter.fit(embeddings);
  if (fitter.misfits().empty()) return fit;
  throw InvalidArgument(
      printable(file.path()) + ": this head does not fit the model (hidden size " +
      std::to_string(target.hidden) + ", " + std::to_string(target.layers) +
      " layers, vocabulary " + std::to_string(target.vocabulary) + "): " + fitter.misfits());
}

}  // namespace spectx::io
