//! toprope-os
