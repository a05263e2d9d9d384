//! toprope-proxy
