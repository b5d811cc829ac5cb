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

/// What a lane leaves in warp_together().
struct Brought {
  Scheduler::Together all;
  void* mine;
};

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
    case WarpOp::together: return "an instruction of kernels/tensor_core.h";
  }
  return "warp function";
}

/// The lane from which a shuffle reads, as PTX defines shfl; its own where the value does not change.
unsigned Scheduler::source_lane(WarpOp op, unsigned lane, unsigned operand, int width) {
  const unsigned inside = static_cast<unsigned>(width) - 1, by = operand % kLanes;
  const unsigned first = lane & ~inside, last = first | inside;
  switch (op) {
    case WarpOp::shuffle: return first | (by & inside);
    case WarpOp::shuffle_up: return by > lane - first ? lane : lane - by;
    case WarpOp::shuffle_down: return by > last - lane ? lane : lane + by;
    case WarpOp::shuffle_xor: return (lane ^ by) > last ? lane : lane ^ by;
    default: return lane;
  }
}

std::uint64_t Scheduler::warp_call(WarpOp op, unsigned mask, std::uint64_t value, unsigned operand, int width,
                                   Place place) {
  const int linear = threads_[current_].linear;
  const auto lane = static_cast<unsigned>(linear % kLanes);
  Warp& warp = warps_[linear / kLanes];
  Deposit& deposit = warp.deposit[lane];
  deposit = {op, mask, source_lane(op, lane, operand, width), value, place};
  if (width < 1 || width > kLanes || !std::has_single_bit(static_cast<unsigned>(width)))
    fault("called " + describe(deposit) + " and width " + std::to_string(width) +
          "; a width is 1, 2, 4, 8, 16 or 32");
  check_mask(warp, lane, deposit);
  const bool is_last = joins_last(warp, lane, deposit);
  warp.waiting |= 1u << lane;
  if (is_last)
    complete(warp, mask, lane);
  else
    block(current_);
  give_way();
  return warp.result[lane];
}

void Scheduler::warp_together(Together all, void* mine, Place place) {
  const Brought brought{all, mine};
  warp_call(WarpOp::together, 0xffffffffu, std::bit_cast<std::uint64_t>(&brought), 0, kLanes, place);
}

void Scheduler::check_mask(const Warp& warp, unsigned lane, const Deposit& deposit) {
  const unsigned mask = deposit.mask;
  if ((mask >> lane & 1u) && !(mask & ~warp.live)) return;
  std::ostringstream text;
  text << "lane " << lane << " called " << describe(deposit) << std::hex;
  if (!(mask >> lane & 1u))
    text << ", which leaves the lane itself out";
  else if (mask & ~warp.existing)
    text << ", which names lanes 0x" << (mask & ~warp.existing) << " that the block does not have";
  else
    text << ", which names lanes 0x" << (mask & ~warp.live) << " that have returned";
  fault(text.str());
}

/// Whether all other lanes of the mask wait with this mask. Those that wait with another one may still come,
/// unless they wait for this lane.
bool Scheduler::joins_last(Warp& warp, unsigned lane, const Deposit& deposit) {
  const unsigned mask = deposit.mask;
  if (warp.waiting == 0) {
    warp.mask = mask;
    warp.has_several_masks = false;
  } else if (mask != warp.mask) {
    warp.has_several_masks = true;
  }
  unsigned partners = warp.waiting & mask;
  const Deposit* clash = nullptr;
  if (warp.has_several_masks)
    for_lanes(partners, [&](unsigned i) {
      if (warp.deposit[i].mask == mask) return;
      partners &= ~(1u << i);
      if (warp.deposit[i].mask >> lane & 1u) clash = &warp.deposit[i];
    });
  if (partners != 0) {
    const Deposit& partner = warp.deposit[std::countr_zero(partners)];
    if (partner.op != deposit.op || !same_place(partner.place, deposit.place)) clash = &partner;
  }
  if (clash)
    fault("lane " + std::to_string(lane) + " called " + describe(deposit) + ", while lane " +
          std::to_string(clash - warp.deposit.data()) + " waits for it in " + describe(*clash));
  return (partners | 1u << lane) == mask;
}

/// All lanes of the mask are there: forms their results and lets them go on.
void Scheduler::complete(Warp& warp, unsigned mask, unsigned lane) {
  const WarpOp op = warp.deposit[lane].op;
  if (op <= WarpOp::shuffle_xor)
    exchange(warp, mask);
  else if (op == WarpOp::match_any)
    for_lanes(mask, [&](unsigned i) {
      unsigned equal = 0;
      for_lanes(mask, [&](unsigned j) { equal |= (warp.deposit[i].value == warp.deposit[j].value) << j; });
      warp.result[i] = equal;
    });
  else if (op == WarpOp::together) {
    std::array<void*, kLanes> brought{};
    Together all = nullptr;
    for_lanes(mask, [&](unsigned i) {
      const Brought& of_lane = *std::bit_cast<const Brought*>(warp.deposit[i].value);
      brought[i] = of_lane.mine, all = of_lane.all;
    });
    all(brought.data());
  } else {
    const unsigned common = common_result(warp, mask, op);
    for_lanes(mask, [&](unsigned i) { warp.result[i] = common; });
  }
  warp.waiting &= ~mask;
  for_lanes(mask, [&](unsigned i) { make_runnable(warp.position[i]); });
}

void Scheduler::exchange(Warp& warp, unsigned mask) {
  for_lanes(mask, [&](unsigned i) {
    const unsigned source = warp.deposit[i].source;
    if (!(mask >> source & 1u))
      fault("lane " + std::to_string(i) + " reads lane " + std::to_string(source) +
            ", which the mask does not name, in " + describe(warp.deposit[i]));
    warp.result[i] = warp.deposit[source].value;
  });
}

/// What every lane of the mask gets.
unsigned Scheduler::common_result(const Warp& warp, unsigned mask, WarpOp op) {
  const auto value = [&](unsigned i) { return static_cast<unsigned>(warp.deposit[i].value); };
  const auto first = static_cast<unsigned>(std::countr_zero(mask));
  const unsigned others = mask & (mask - 1);
  unsigned ballot = 0, reduced = value(first), all_equal = mask;
  switch (op) {
    case WarpOp::barrier: return 0;
    case WarpOp::ballot:
    case WarpOp::any:
    case WarpOp::all:
      for_lanes(mask, [&](unsigned i) { ballot |= value(i) << i; });
      return op == WarpOp::ballot ? ballot : op == WarpOp::any ? ballot != 0 : ballot == mask;
    case WarpOp::match_all:
      for_lanes(others, [&](unsigned i) {
        if (warp.deposit[i].value != warp.deposit[first].value) all_equal = 0;
      });
      return all_equal;
    default: for_lanes(others, [&](unsigned i) { reduced = combine(op, reduced, value(i)); }); return reduced;
  }
}

std::string Scheduler::describe(const Deposit& deposit) {
  std::ostringstream text;
  text << name_of(deposit.op) << " at " << deposit.place.file << ':' << deposit.place.line << " with mask 0x"
       << std::hex << deposit.mask;
  return text.str();
}

}  // namespace sgm::emulator
