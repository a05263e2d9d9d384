//! toprope-faults
