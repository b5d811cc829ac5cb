// Warp functions: every lane leaves what it brings; the last of the mask forms the result for all.

#include <bit>
#include <cstring>
#include <sstream>

#include "emulator/scheduler.h"

namespace sgm::emulator {
namespace {

bool same_place(const Place& a, const Place& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

template <class Visit>
void for_lanes(unsigned mask, Visit&& visit) {
  for (; mask != 0; mask &= mask - 1) visit(static_cast<unsigned>(std::countr_zero(mask)));
}

/// What a and b make in a reduction.
unsigned combine(WarpOp op, unsigned a, unsigned b) {
  switch (op) {
    case WarpOp::add: return a + b;
    case WarpOp::min_signed: return static_cast<int>(a) < static_cast<int>(b) ? a : b;
    case WarpOp::max_signed: return static_cast<int>(a) < static_cast<int>(b) ? b : a;
    case WarpOp::min_unsigned: return a < b ? a : b;
    case WarpOp::max_unsigned: return a < b ? b : a;
    case WarpOp::bit_and: return a & b;
    case WarpOp::bit_or: return a | b;
    default: return a ^ b;
  }
}

}  // namespace

const char* name_of(WarpOp op) {
  switch (op) {
    case WarpOp::shuffle: return "__shfl_sync";
    case WarpOp::shuffle_up: return "__shfl_up_sync";
    case WarpOp::shuffle_down: return "__shfl_down_sync";
    case WarpOp::shuffle_xor: return "__shfl_xor_sync";
    case WarpOp::ballot: return "__ballot_sync";
    case WarpOp::any: return "__any_sync";
    case WarpOp::all: return "__all_sync";
    case WarpOp::barrier: return "__syncwarp";
    case WarpOp::add: return "__reduce_add_sync";
    case WarpOp::min_signed:
    case WarpOp::min_unsigned: return "__reduce_min_sync";
    case WarpOp::max_signed:
    case WarpOp::max_unsigned: return "__reduce_max_sync";
    case WarpOp::bit_and: return "__reduce_and_sync";
    case WarpOp::bit_or: return "__reduce_or_sync";
    case WarpOp::bit_xor: return "__reduce_xor_sync";
    case WarpOp::match_any: return "__match_any_sync";
    case WarpOp::match_all: return "__match_all_sync";
  }
  return "warp function";
}

/// The lane from which a shuffle reads; its own where CUDA says that the value does not change.
unsigned Scheduler::source_lane(WarpOp op, unsigned lane, unsigned operand, int width) const {
  const unsigned inside = static_cast<unsigned>(width) - 1;
  const unsigned first = lane & ~inside, last = first | inside;
  switch (op) {
    case WarpOp::shuffle: return first | (operand & inside);
    case WarpOp::shuffle_up: return operand > lane - first ? lane : lane - operand;
    case WarpOp::shuffle_down: return operand > last - lane ? lane : lane + operand;
    case WarpOp::shuffle_xor: return (lane ^ operand) > last ? lane : lane ^ operand;
    default: return lane;
  }
}

std::uint64_t Scheduler::warp_call(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand, int width,
                                   Place place) {
  const int linear = threads_[current_].linear;
  const auto lane = static_cast<unsigned>(linear % kLanes);
  Warp& warp = warps_[linear / kLanes];
  if (width < 1 || width > kLanes || !std::has_single_bit(static_cast<unsigned>(width))) {
    std::ostringstream text;
    text << name_of(op) << " with width " << width << " at " << place.file << ':' << place.line
         << "; a width is 1, 2, 4, 8, 16 or 32";
    fault(text.str());
  }
  Deposit& deposit = warp.deposit[lane];
  deposit = {op, mask, source_lane(op, lane, operand, width), value, place};
  check_arrival(warp, lane, deposit);
  warp.waiting |= 1u << lane;
  if ((warp.waiting & mask) == mask)
    complete(warp, mask, lane);
  else
    block(current_);
  give_way();
  return warp.result[lane];
}

/// Faults when a lane's call cannot be right, whatever the other lanes do.
void Scheduler::check_arrival(const Warp& warp, unsigned lane, const Deposit& deposit) {
  const unsigned mask = deposit.mask, others = warp.waiting & mask;
  const bool absent = !(mask >> lane & 1u) || (mask & ~warp.live);
  if (!absent && others == 0) return;
  const Deposit* other = nullptr;
  for_lanes(others, [&](unsigned i) {
    const Deposit& there = warp.deposit[i];
    if (there.op != deposit.op || there.mask != mask || !same_place(there.place, deposit.place))
      other = &there;
  });
  if (!absent && !other) return;
  std::ostringstream text;
  text << "lane " << lane << " called " << name_of(deposit.op) << " at " << deposit.place.file << ':'
       << deposit.place.line << std::hex << " with mask 0x" << mask;
  if (!(mask >> lane & 1u))
    text << ", which leaves the lane itself out";
  else if (mask & ~warp.existing)
    text << ", which names lanes 0x" << (mask & ~warp.existing) << " that the block does not have";
  else if (mask & ~warp.live)
    text << ", which names lanes 0x" << (mask & ~warp.live) << " that have returned";
  else
    text << ", while lane " << std::dec << (other - warp.deposit.data()) << " of that mask waits in "
         << name_of(other->op) << " at " << other->place.file << ':' << other->place.line << " with mask 0x"
         << std::hex << other->mask;
  fault(text.str());
}

/// All lanes of the mask are there: forms their results and lets them go on.
void Scheduler::complete(Warp& warp, unsigned mask, unsigned lane) {
  const WarpOp op = warp.deposit[lane].op;
  std::uint64_t common = 0;
  switch (op) {
    case WarpOp::shuffle:
    case WarpOp::shuffle_up:
    case WarpOp::shuffle_down:
    case WarpOp::shuffle_xor:
      for_lanes(mask, [&](unsigned i) {
        const unsigned source = warp.deposit[i].source;
        if (!(mask >> source & 1u)) {
          std::ostringstream text;
          text << "lane " << i << " reads lane " << source << " in " << name_of(op) << " at "
               << warp.deposit[i].place.file << ':' << warp.deposit[i].place.line << " with mask 0x"
               << std::hex << mask << ", which does not name lane " << std::dec << source;
          become(warp.position[i]);
          fault(text.str());
        }
        warp.result[i] = warp.deposit[source].value;
      });
      break;
    case WarpOp::match_any:
      for_lanes(mask, [&](unsigned i) {
        warp.result[i] = 0;
        for_lanes(mask, [&](unsigned j) {
          if (warp.deposit[i].value == warp.deposit[j].value) warp.result[i] |= 1u << j;
        });
      });
      break;
    case WarpOp::match_all:
      common = mask;
      for_lanes(mask, [&](unsigned i) {
        if (warp.deposit[i].value != warp.deposit[lane].value) common = 0;
      });
      break;
    case WarpOp::ballot:
    case WarpOp::any:
    case WarpOp::all:
    case WarpOp::barrier:
      for_lanes(mask, [&](unsigned i) { common |= (warp.deposit[i].value & 1u) << i; });
      if (op == WarpOp::any) common = common != 0;
      if (op == WarpOp::all) common = common == mask;
      break;
    default: {
      bool first = true;
      for_lanes(mask, [&](unsigned i) {
        const auto value = static_cast<unsigned>(warp.deposit[i].value);
        common = first ? value : combine(op, static_cast<unsigned>(common), value);
        first = false;
      });
    }
  }
  const bool lane_by_lane = op <= WarpOp::shuffle_xor || op == WarpOp::match_any;
  if (!lane_by_lane) for_lanes(mask, [&](unsigned i) { warp.result[i] = common; });
  warp.waiting &= ~mask;
  for_lanes(mask, [&](unsigned i) { make_runnable(warp.position[i]); });
}

}  // namespace sgm::emulator
