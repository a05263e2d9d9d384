//! toprope-model
