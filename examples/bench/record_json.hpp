// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "bench/record.hpp"

namespace spectx::bench {

using Json = nlohmann::ordered_json;

Json machine_json(const Machine& machine);
Json case_json(const Case& asked);
std::string printed(const char* format, double value);

}  // namespace spectx::bench
