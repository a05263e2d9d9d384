//! Golden values for the tests, made by `golden/golden.py` with independent implementations.

use std::collections::HashMap;
use std::sync::LazyLock;

/// `[inputs, output]` by name.
type Cases = HashMap<String, Vec<(Vec<f64>, f64)>>;

static GOLDEN: LazyLock<Cases> =
    LazyLock::new(|| serde_json::from_str(include_str!("../golden/golden.json")).expect("it is what the script wrote"));

/// Holds `f` against every golden value of this name, to a relative (below 1: absolute) precision.
pub(crate) fn golden(name: &str, precision: f64, f: impl Fn(&[f64]) -> f64) {
    let cases = &GOLDEN[name];
    assert!(!cases.is_empty());
    for (inputs, wanted) in cases {
        let found = f(inputs);
        let error = (found - wanted).abs() / wanted.abs().max(1.0);
        assert!(error <= precision, "{name} of {inputs:?} is {found}, not {wanted}: off by {error:e}");
    }
}
