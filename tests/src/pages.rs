//! The documentation's pages: their code blocks, and what manifests these are.

use std::path::{Path, PathBuf};

/// Where the workspace is.
///
/// # Panics
/// This crate lies elsewhere.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The text of a page, by its path in the workspace.
///
/// # Panics
/// It is not there.
pub fn read(page: &str) -> String {
    std::fs::read_to_string(root().join(page)).unwrap_or_else(|e| panic!("{page}: {e}"))
}

/// A fenced block of a page.
#[derive(Debug)]
pub struct Block {
    /// Its first line, from 1.
    pub line: usize,
    /// Its language.
    pub language: String,
    /// What stands behind the language: a file's name.
    pub name: Option<String>,
    /// Why it is not run.
    pub left_out: Option<String>,
    /// What it holds.
    pub text: String,
}

impl Block {
    /// Whether it is a manifest, and not a part of one.
    pub fn is_whole(&self) -> bool {
        ["kind: Experiment", "kind: Policy", "kind: Topology"].iter().any(|kind| self.text.contains(kind))
    }

    /// The manifests that it may be: itself, or a manifest around a list of probes, of steps, or another part of a `spec`.
    pub fn wholes(&self) -> Vec<String> {
        if self.is_whole() {
            vec![self.text.clone()]
        } else if self.text.starts_with("- ") {
            vec![whole(&format!("probes:\n{}", self.text)), whole(&format!("method:\n{}", self.text))]
        } else {
            vec![whole(&self.text)]
        }
    }
}

/// The fenced blocks of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut left_out = None;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(why) = line.strip_prefix("<!-- not run:") {
            left_out = Some(why.trim_end_matches("-->").trim().to_owned());
        } else if let Some(info) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().map(|l| l.1).take_while(|l| *l != "```").collect();
            let (language, name) = info.split_once(' ').map_or((info, None), |(l, n)| (l, Some(n.trim().to_owned())));
            let (language, text) = (language.to_owned(), body.join("\n") + "\n");
            blocks.push(Block { line: number + 1, language, name, left_out: left_out.take(), text });
        } else if !line.is_empty() {
            left_out = None;
        }
    }
    blocks
}

/// A manifest around a part of a `spec`.
fn whole(part: &str) -> String {
    let has = |key: &str| part.lines().any(|line| line.starts_with(key));
    let mut text =
        "apiVersion: toprope.dev/v1alpha1\nkind: Experiment\nmetadata: {name: part}\nspec:\n  hypothesis: it stands\n"
            .to_owned();
    if !has("probes:") {
        text.push_str("  probes: [{http: {name: checkout, get: \"http://127.0.0.1:8080/\"}}]\n");
    }
    if !has("method:") {
        text.push_str("  method: [{process-pause: {target: {process: nginx}, for: 2s}}]\n");
    }
    part.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    text
}
