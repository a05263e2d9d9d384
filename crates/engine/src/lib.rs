//! toprope-engine
