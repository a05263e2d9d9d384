// Values of confseq (Howard, Waudby-Smith & Ramdas; https://github.com/gostevehoward/confseq), the reference
// implementation, of which only the C++ header is used: its Python package does not build any more. One call a line on
// the standard input, one value a line on the standard output. See golden.py for how it is built.
#include <cmath>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <cassert>
#include "uniform_boundaries.h"

int main() {
  using namespace confseq;
  std::cout.precision(17);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream in(line);
    std::string name;
    in >> name;
    std::vector<double> x;
    for (double v; in >> v;) x.push_back(v);
    double out = NAN;
    if (name == "dkw") out = empirical_process_lil_bound((int)x[2], x[0], x[1]);
    else if (name == "double-stitching") out = double_stitching_bound(x[0], x[1], x[2], x[3]);
    else if (name == "beta-binomial") out = beta_binomial_log_mixture(x[0], x[1], x[2], x[3], x[4], x[5], false);
    else if (name == "gamma-poisson") out = gamma_poisson_log_mixture(x[0], x[1], x[2], 1, x[3]);
    else if (name == "normal") out = normal_log_mixture(x[0], x[1], x[2], x[3], false);
    else if (name == "normal-one-sided") out = normal_log_mixture(x[0], x[1], x[2], x[3], true);
    else if (name == "quantile-ab") {
      auto split = x.begin() + 4 + (int)x[3];
      auto arm1 = std::make_shared<StaticOrderStatistics>(x.begin() + 4, split);
      auto arm2 = std::make_shared<StaticOrderStatistics>(split, x.end());
      out = QuantileABTest(x[0], (int)x[1], x[2], arm1, arm2).p_value();
    }
    std::cout << out << std::endl;
  }
}
