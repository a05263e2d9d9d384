//! toprope-stats
