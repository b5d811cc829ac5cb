#pragma once
// The table of explicit Runge-Kutta methods.

#include <string_view>

namespace sgm {

inline constexpr int kMaxStages = 7;

/// An explicit Runge-Kutta method: stage s is the drift at node[s], at y + h sum_j weight[s][j] stage j. The
/// last row is the solution; methods with an error estimate also evaluate the drift there, which is the next
/// step's first stage.
struct Tableau {
  std::string_view name;
  int rows;  // the last is the solution
  double node[kMaxStages];
  double weight[kMaxStages][kMaxStages - 1];
  int error_order;  // step sizes follow error^(-1 / error_order); 0: no estimate
  double error[kMaxStages];

  bool is_adaptive() const { return error_order > 0; }
};

inline constexpr Tableau kTableaus[] = {
    {"rk45",  // Dormand and Prince
     7,
     {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1},
     {{},
      {1.0 / 5},
      {3.0 / 40, 9.0 / 40},
      {44.0 / 45, -56.0 / 15, 32.0 / 9},
      {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
      {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
      {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84}},
     5,
     {-71.0 / 57600, 0, 71.0 / 16695, -71.0 / 1920, 17253.0 / 339200, -22.0 / 525, 1.0 / 40}},
    {"rk23",  // Bogacki and Shampine
     4,
     {0, 1.0 / 2, 3.0 / 4, 1},
     {{}, {1.0 / 2}, {0, 3.0 / 4}, {2.0 / 9, 1.0 / 3, 4.0 / 9}},
     3,
     {5.0 / 72, -1.0 / 12, -1.0 / 9, 1.0 / 8}},
    {"heun", 3, {0, 1, 1}, {{}, {1}, {1.0 / 2, 1.0 / 2}}, 0, {}},
    {"rk4",  // the classical one
     5,
     {0, 1.0 / 2, 1.0 / 2, 1, 1},
     {{}, {1.0 / 2}, {0, 1.0 / 2}, {0, 0, 1}, {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6}},
     0,
     {}},
    {"euler", 2, {0, 1}, {{}, {1}}, 0, {}},
};

}  // namespace sgm
