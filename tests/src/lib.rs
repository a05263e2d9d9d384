//! toprope-tests
