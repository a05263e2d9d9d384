//! toprope-shop
