//! The schema that editors use takes every manifest that Toprope takes, and refuses what Toprope refuses.

use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::{Value as Json, json};
use toprope_model::Sources;
use toprope_tests::Toprope;
use toprope_tests::pages::{blocks, read, root};

struct Schemas {
    experiment: Validator,
    policy: Validator,
    topology: Validator,
}

impl Schemas {
    fn new() -> Self {
        let schema = |name: &str| {
            let schema: Json = serde_json::from_str(&read(&format!("schema/{name}.json"))).expect("it is JSON");
            jsonschema::draft202012::meta::validate(&schema).expect("it is a schema");
            jsonschema::validator_for(&schema).expect("it is a schema")
        };
        Self { experiment: schema("experiment"), policy: schema("policy"), topology: schema("topology") }
    }

    /// What an editor would flag in a text.
    fn flagged(&self, text: &str) -> Vec<String> {
        let mut sources = Sources::default();
        let json = toprope_model::parse(&mut sources, "", text).unwrap_or_else(|e| panic!("{e}: {text}")).to_json();
        let validator = match json["kind"].as_str() {
            Some("Policy") => &self.policy,
            Some("Topology") => &self.topology,
            _ => &self.experiment,
        };
        validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect()
    }
}

/// Every YAML file below a directory.
fn manifests(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("it is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_examples_are_not_flagged() {
    let schemas = Schemas::new();
    let files = manifests(&root().join("examples"));
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it was listed");
        assert_eq!(schemas.flagged(&text), Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn the_examples_are_taken() {
    let toprope = Toprope::new();
    let mut files: Vec<_> = manifests(&root().join("examples")).iter().map(|f| f.display().to_string()).collect();
    files.retain(|f| !f.ends_with("topology.yaml"));
    let args: Vec<&str> = ["validate"].into_iter().chain(files.iter().map(String::as_str)).collect();
    toprope.run(&args).expect(0);
}

#[test]
fn what_the_documentation_shows_is_not_flagged() {
    let schemas = Schemas::new();
    let mut pages: Vec<String> = ["README.md", "examples/shop/README.md"].map(str::to_owned).into();
    for directory in ["docs/guide", "docs/reference"] {
        let entries = std::fs::read_dir(root().join(directory)).expect("it is there").flatten();
        pages.extend(entries.map(|e| format!("{directory}/{}", e.file_name().to_string_lossy())));
    }
    let mut seen = 0;
    for page in pages {
        for block in blocks(&read(&page)).iter().filter(|b| b.language == "yaml" && b.left_out.is_none()) {
            let part = block.text.starts_with("kind: Part");
            let wholes = if part { vec![block.text.clone()] } else { block.wholes() };
            let flagged: Vec<_> = wholes.iter().map(|text| schemas.flagged(text)).collect();
            assert!(flagged.iter().any(Vec::is_empty), "{page}:{}: {flagged:#?}", block.line);
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} manifests");
}

#[test]
fn references_parts_and_includes_are_known_and_mistakes_are_flagged() {
    let schemas = Schemas::new();
    let whole = "apiVersion: toprope.dev/v1alpha1\nkind: Experiment\nmetadata: {name: x}\n";
    let probe = "probes: [{tcp: {connect: '${host}:1', interval: '${i}', timeout: '${t}'}}]";
    let spec = format!("{{hypothesis: x, {probe}, method: [{{cpu-stress: {{load: 5%, cores: '${{n}}', for: 1s}}}}]}}");
    for taken in [
        format!("{whole}spec: {spec}"),
        format!("{whole}values: {{n: 1, list: [1]}}\nspec: {spec}"),
        format!("{whole}include: [common.yaml]\nspec: {{environment: x}}"),
        "kind: Part\nvalues: {a: 1}\nspec: {environment: x}".to_owned(),
    ] {
        assert_eq!(schemas.flagged(&taken), Vec::<String>::new(), "{taken}");
    }
    for flagged in [
        format!("{whole}spec: {{environment: x}}"),
        format!("{whole}includes: [common.yaml]\nspec: {spec}"),
        format!("{whole}include: common.yaml\nspec: {spec}"),
        format!("{whole}spec: {}", spec.replace("${n}", "many")),
        format!("{whole}spec: {}", spec.replace("cores", "cors")),
        "kind: Part\nspec: {enviroment: x}".to_owned(),
        "kind: Experiment\nspec: {}".to_owned(),
    ] {
        assert_ne!(schemas.flagged(&flagged), Vec::<String>::new(), "{flagged}");
    }
    let topology =
        json!({"apiVersion": "toprope.dev/v1alpha1", "kind": "Topology", "metadata": {"name": "x"}, "spc": {}});
    assert_ne!(schemas.flagged(&topology.to_string()), Vec::<String>::new());
}
