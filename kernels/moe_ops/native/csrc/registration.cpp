// What Python sees of the library itself; each operation has a registration file of its own.
#include <torch/library.h>

#include "cpu.h"
#include "threads.h"

TORCH_LIBRARY_FRAGMENT(tokenworks, m) {
  m.def("isa() -> int", [] { return static_cast<int64_t>(tokenworks::isa()); });
  m.def("isa_best() -> int", [] { return static_cast<int64_t>(tokenworks::isa_best()); });
  m.def("release_threads() -> ()", [] { tokenworks::release_threads(); });
  m.def("isa_use(int isa) -> ()", [](int64_t isa) { tokenworks::isa_use(static_cast<tokenworks::Isa>(isa)); });
}
