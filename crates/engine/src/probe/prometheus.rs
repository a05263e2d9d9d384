//! `prometheus`: asks a Prometheus for a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::Url;
use serde_json::Value as Json;
use toprope_model::comparison::Op;
use toprope_model::{Comparison, KindSpec, Node, Problems, choice, fields};

use super::expect::{Expect, shown};
use super::instrument::Instrument;
use super::params::{self, Params};
use super::secret::Secret;
use super::tls::Tls;
use super::web::{Auth, Options, WebUrl};
use super::{Answer, Context, Moment, Probe, ProbeError, ProbeKind};

choice! {
    /// What a query without a result says.
    enum Empty {
        /// Nothing: nobody has seen.
        NoEvidence = "no-evidence",
        /// That all is well.
        Good = "good",
        /// That something is wrong.
        Bad = "bad",
    }
}

fields! {
    /// Parameters of `prometheus`.
    struct Prometheus {
        /// The query in PromQL, asked for this instant.
        query: String,
        /// Where Prometheus, or what speaks its API (Thanos, Mimir, VictoriaMetrics), is.
        url: WebUrl = "http://127.0.0.1:9090",
        /// What each value of the result must be: a comparison or a range.
        value: Option<Comparison>,
        /// What each value of the result may be: one of these.
        in_: Vec<Comparison>,
        /// What a result without any value says: `no-evidence`, `good` or `bad`.
        empty: Empty = "no-evidence",
        /// Headers to send, for instance `X-Scope-OrgID`.
        headers: BTreeMap<String, String>,
        /// Headers to send whose values are secrets, each by reference.
        secret_headers: BTreeMap<String, Secret>,
        /// Who asks: `{bearer: {env: TOKEN}}` or `{basic: {user: me, password: {file: PATH}}}`.
        auth: Option<Auth>,
        /// How to speak TLS.
        tls: Option<Tls>,
    }
}

impl Params for Prometheus {
    fn verify(&self, node: &Node, problems: &mut Problems) {
        constant(&self.url, node, "url", problems);
        if self.query.trim().is_empty() {
            let span = node.get("query").map_or(node.span, |n| n.span);
            problems.add(span, "the query is empty", "nothing is asked").help("for instance up{job=\"api\"}");
        }
    }
}

/// Notes that the URL of an instrument differs from sample to sample.
pub(super) fn constant(url: &WebUrl, node: &Node, key: &str, problems: &mut Problems) {
    if !url.template.is_constant() {
        let span = node.get(key).map_or(node.span, |n| n.span);
        problems.add(span, "this URL is the same in every sample", "without placeholders");
    }
}

static SPEC: KindSpec = KindSpec {
    kind: "prometheus",
    summary: "Asks a Prometheus for the value of a query.",
    docs: "\
Each sample is one instant query. Of a result with several series, **every** value is judged. The value of the sample is the
worst one: the largest if `value` sets an upper bound, the smallest if it sets a lower one, else the first that is not as it
should be, or the first. Mind how often Prometheus scrapes: between two scrapes it answers the same.

Prometheus is an instrument, not the system. That it does not answer, refuses the query, has no data (also: the metric has
disappeared) or answers NaN is **no evidence**, and a run whose probe has none is inconclusive. A query whose result is empty
when all is well, such as one that filters, says so with `empty: good`.

```yaml
- prometheus:
    query: 'sum(rate(http_requests_total{code=~\"5..\"}[1m])) / sum(rate(http_requests_total[1m]))'
    url: https://prometheus.internal
    auth: {bearer: {env: PROMETHEUS_TOKEN}}
    value: < 0.01
```",
    example: "\
- prometheus:
    query: up{job=\"api\"}
    url: http://127.0.0.1:9090
    value: 1
",
    fields: Prometheus::fields,
    check: params::check::<Prometheus>,
};

/// The kind.
pub(super) struct Kind;

impl ProbeKind for Kind {
    fn spec(&self) -> &'static KindSpec {
        &SPEC
    }

    fn build(&self, params: &Node, context: &Context) -> Result<Box<dyn Probe>, ProbeError> {
        let params: Prometheus = params::read(params)?;
        let options = Options {
            headers: params.headers,
            secret_headers: params.secret_headers,
            auth: params.auth.as_ref(),
            tls: params.tls.as_ref(),
            keepalive: true,
            follow: 0,
        };
        let instrument = Instrument::new("Prometheus", &params.url, &options, context)?;
        let mut asked = params.url.below("api/v1/query").ok_or_else(|| ProbeError::new("the URL takes no path"))?;
        asked.query_pairs_mut().append_pair("query", &params.query);
        Ok(Box::new(PrometheusProbe {
            instrument,
            asked,
            query: params.query.split_whitespace().collect::<Vec<_>>().join(" "),
            expect: Expect { value: params.value, in_: params.in_, ..Expect::default() },
            empty: params.empty,
        }))
    }
}

struct PrometheusProbe {
    instrument: Instrument,
    asked: Url,
    /// On one line.
    query: String,
    expect: Expect,
    empty: Empty,
}

/// A value, and whose it is.
type Series = (String, f64);

/// The values of an answer, by <https://prometheus.io/docs/prometheus/latest/querying/api/>, section "Expression query
/// result formats".
fn values(answer: &Json) -> Result<Vec<Series>, String> {
    let number = |value: &Json| {
        let text = value[1].as_str().ok_or("a value is no text")?;
        text.parse::<f64>().map_err(|_| format!("a value is {}, not a number", shown(text)))
    };
    let result = &answer["data"]["result"];
    match answer["data"]["resultType"].as_str() {
        Some("scalar") => Ok(vec![("the value".into(), number(result)?)]),
        Some("vector") => {
            let series = result.as_array().ok_or("its vector is no list")?;
            series.iter().map(|one| Ok((labels(&one["metric"]), number(&one["value"])?))).collect()
        }
        Some(other) => Err(format!("the query yields a {other}, and a vector or a scalar is wanted")),
        None => Err("its answer is not that of a query".into()),
    }
}

/// What tells one series from the others.
fn labels(metric: &Json) -> String {
    let pairs: Vec<String> = metric.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    let labels = format!("the value of {{{}}}", pairs.join(", "));
    if labels.chars().count() > 120 { format!("{}…}}", labels.chars().take(120).collect::<String>()) } else { labels }
}

impl PrometheusProbe {
    fn judge(&self, series: &[Series]) -> Answer {
        if series.is_empty() {
            return match self.empty {
                Empty::NoEvidence => Answer::broken("the query has no result: nobody has seen"),
                Empty::Good => Answer::good(),
                Empty::Bad => Answer::bad("the query has no result"),
            };
        }
        if let Some((whose, _)) = series.iter().find(|(_, value)| value.is_nan()) {
            return Answer::broken(format!("{whose} is NaN: there was nothing to compute it from"));
        }
        let refused = |(whose, value): &Series| self.expect.judge_number(whose, *value);
        let by_value = |a: &&Series, b: &&Series| a.1.total_cmp(&b.1);
        let worst = match self.expect.value.as_ref().map(Comparison::op) {
            Some(Op::Less | Op::AtMost) => series.iter().max_by(by_value),
            Some(Op::More | Op::AtLeast) => series.iter().min_by(by_value),
            _ => series.iter().find(|one| refused(one).is_some()).or(series.first()),
        };
        let bad = worst.and_then(refused).or_else(|| series.iter().find_map(refused));
        Answer { bad, value: worst.map(|(_, value)| *value), ..Answer::good() }
    }
}

impl Probe for PrometheusProbe {
    fn asks(&self) -> String {
        format!("PromQL {}", self.query)
    }

    fn tolerates(&self) -> String {
        self.expect.describe("each value").join(", ")
    }

    fn unit(&self) -> &'static str {
        ""
    }

    fn sample(self: Arc<Self>, _moment: Moment) -> BoxFuture<'static, Answer> {
        Box::pin(async move {
            let answer = match self.instrument.ask(self.asked.clone()).await {
                Ok(answer) => answer,
                Err(none) => return none,
            };
            match values(&answer) {
                Ok(series) => self.judge(&series),
                Err(why) => Answer::broken(format!("Prometheus cannot be understood: {why}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::time::Duration;

    use axum::extract::Query;
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::IntoResponse;
    use axum::routing::get;
    use axum::{Json as Body, Router};
    use serde_json::json;

    use super::*;
    use crate::probe::testing::{ask, context, nobody, probe, problems, serve_http, try_probe};

    fn vector(values: &[&str]) -> Json {
        let one = |(i, value): (usize, &&str)| json!({"metric": {"__name__": "m", "i": i.to_string()}, "value": [1.5, value]});
        let series: Vec<Json> = values.iter().enumerate().map(one).collect();
        json!({"status": "success", "data": {"resultType": "vector", "result": series}})
    }

    /// Answers as Prometheus does, below a path.
    async fn server() -> SocketAddr {
        let answer = async |Query(asked): Query<HashMap<String, String>>, headers: HeaderMap| {
            let scalar = json!({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "7"]}});
            match asked["query"].as_str() {
                "three" => Body(vector(&["1", "5", "3"])).into_response(),
                "none" => Body(vector(&[])).into_response(),
                "nan" => Body(vector(&["1", "NaN"])).into_response(),
                "inf" => Body(vector(&["+Inf"])).into_response(),
                "7" => Body(scalar).into_response(),
                "auth" if headers["authorization"] == "Bearer toprope-engine" => Body(vector(&["1"])).into_response(),
                "m[1m]" => Body(json!({"data": {"resultType": "matrix", "result": []}})).into_response(),
                "wrong(" => {
                    let error = json!({"status": "error", "errorType": "bad_data", "error": "parse error: unclosed"});
                    (StatusCode::BAD_REQUEST, Body(error)).into_response()
                }
                "garbage" => "<html>".into_response(),
                "slow" => {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    Body(vector(&["1"])).into_response()
                }
                _ => StatusCode::BAD_GATEWAY.into_response(),
            }
        };
        serve_http(Router::new().route("/prom/api/v1/query", get(answer))).await
    }

    #[tokio::test]
    async fn every_value_is_judged_and_the_worst_is_shown() {
        let at = server().await;
        let of = |yaml: &str| probe(&Kind, &format!("{{url: 'http://{at}/prom/', {yaml}}}"));
        let good = |value| Answer { value: Some(value), ..Answer::good() };
        assert_eq!(ask(&of("query: three")).await, good(1.0));
        assert_eq!(ask(&of("query: three, value: < 6")).await, good(5.0));
        assert_eq!(ask(&of("query: three, value: > 0")).await, good(1.0));
        assert_eq!(ask(&of("query: three, in: [1, 3, 5]")).await, good(1.0));
        let bad = ask(&of("query: three, value: < 4")).await;
        assert_eq!(bad.bad.as_deref(), Some("the value of {__name__=\"m\", i=\"1\"} is `5`, not < 4"));
        assert_eq!(bad.value, Some(5.0));
        assert_eq!(ask(&of("query: three, value: 1..4")).await.value, Some(5.0));
        assert_eq!(ask(&of("query: '7', value: 7")).await, good(7.0));
        assert_eq!(ask(&of("query: inf, value: > 5")).await.bad, None);
        assert_eq!(ask(&of("query: auth, auth: {bearer: {env: CARGO_PKG_NAME}}")).await, good(1.0));
    }

    #[tokio::test]
    async fn a_result_without_a_value_says_what_it_is_told_to_say() {
        let at = server().await;
        let of = |yaml: &str| probe(&Kind, &format!("{{url: 'http://{at}/prom', query: none, {yaml}}}"));
        assert!(ask(&of("value: 1")).await.broken, "a metric that disappears is no evidence");
        assert_eq!(ask(&of("empty: good")).await, Answer::good());
        assert_eq!(ask(&of("empty: bad")).await, Answer::bad("the query has no result"));
    }

    #[tokio::test]
    async fn an_instrument_that_cannot_see_is_no_evidence() {
        let at = server().await;
        for (query, why) in [
            ("nan", "is NaN"),
            ("m[1m]", "yields a matrix"),
            ("wrong(", "parse error: unclosed"),
            ("garbage", "not JSON"),
            ("other", "status 502"),
        ] {
            let answer = ask(&probe(&Kind, &format!("{{url: 'http://{at}/prom', query: '{query}'}}"))).await;
            assert!(answer.broken && answer.bad.as_ref().unwrap().contains(why), "{query}: {answer:?}");
        }
        let gone = ask(&probe(&Kind, &format!("{{url: 'http://{}', query: x}}", nobody()))).await;
        assert!(gone.broken && gone.bad.unwrap().contains("connection refused"));
        let hurried = Context { timeout: Duration::from_millis(300), ..context() };
        let slow = try_probe(&Kind, &format!("{{url: 'http://{at}/prom', query: slow}}"), &hurried).unwrap();
        let silent = ask(&slow).await;
        assert!(silent.broken && silent.bad.unwrap().contains("no answer within 270ms"));
    }

    #[test]
    fn a_query_is_needed() {
        assert!(problems(&Kind, "{}").contains("`query` is missing"));
        assert!(problems(&Kind, "{query: ' '}").contains("empty"));
        assert!(problems(&Kind, "{query: up, url: 'http://x/{n}'}").contains("same in every sample"));
        assert_eq!(probe(&Kind, "{query: \"a\\n  + b\"}").asks(), "PromQL a + b");
    }
}
