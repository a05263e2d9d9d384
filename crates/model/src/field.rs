//! Fields declared once: the [`fields!`](crate::fields) macro makes a struct, its reader with errors at their places,
//! and the description from which JSON schema, reference, CLI help and forms are made.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::diagnostic::Problems;
use crate::node::{Node, Value};

/// The type of a value in a manifest. Every type is one JSON type.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number within limits (both included).
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// Any number.
    Float,
    /// Text of a given form.
    Text {
        /// What it holds, in words: `a duration`, `a URL`.
        what: &'static str,
        /// A value to show as an example; empty where any text will do.
        example: &'static str,
    },
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A list.
    List(Box<Type>),
    /// A map from names to values of one type.
    Map(Box<Type>),
    /// A map with known keys.
    Object(Vec<Field>),
    /// A single-key map whose key is a kind of the named table (`fault`, `probe`, `step`).
    Kind(&'static str),
}

/// One known key of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The key as it is written, in kebab-case.
    pub key: String,
    /// What it means, for users.
    pub doc: String,
    /// What it holds.
    pub ty: Type,
    /// Whether it must be there.
    pub required: bool,
    /// What holds when it is not there, as text.
    pub default: Option<&'static str>,
}

/// What can be read from a node of a manifest.
pub trait FromNode: Sized {
    /// What a node must look like.
    fn ty() -> Type;

    /// Reads a node; what is wrong with it is noted in `problems`, and then the result is `None`.
    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self>;

    /// What stands for a key that is not there; `None` if it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// The key for a Rust field name: `initial_delay` is `initial-delay`, `for_` is `for`.
pub fn key_of(ident: &str) -> Cow<'_, str> {
    let ident = ident.strip_prefix("r#").unwrap_or(ident);
    let ident = ident.strip_suffix('_').unwrap_or(ident);
    if ident.contains('_') { Cow::Owned(ident.replace('_', "-")) } else { Cow::Borrowed(ident) }
}

/// Notes that a node is not of the type that was expected.
pub fn wrong_type(node: &Node, expected: &str, problems: &mut Problems) {
    problems.add(node.span, format!("{expected} was expected, not {}", node.type_name()), format!("not {expected}"));
}

/// Notes every key of a map that is not among the known ones. `what` says what kind of key it is.
pub fn refuse_unknown_keys(node: &Node, known: &[&str], what: &str, problems: &mut Problems) {
    for entry in node.entries().unwrap_or_default() {
        if !known.contains(&entry.key.as_str()) {
            problems.unknown_name(entry.key_span, what, &entry.key, known.iter().copied());
        }
    }
}

/// Reads one key of a map, or takes its default. Used by [`fields!`](crate::fields).
pub fn read_field<T: FromNode>(
    node: &Node,
    ident: &str,
    default: Option<&'static str>,
    problems: &mut Problems,
) -> Option<T> {
    let key = key_of(ident);
    match (node.get(&key), default) {
        (Some(value), _) => T::from_node(value, problems),
        (None, Some(text)) => {
            let value = Node { span: node.span, value: crate::parse::resolve_plain(text) };
            T::from_node(&value, problems)
        }
        (None, None) => T::absent().or_else(|| {
            problems.add(node.span, format!("`{key}` is missing"), format!("`{key}` must be given here"));
            None
        }),
    }
}

impl FromNode for bool {
    fn ty() -> Type {
        Type::Bool
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Bool(b) => Some(b),
            _ => {
                wrong_type(node, "true or false", problems);
                None
            }
        }
    }
}

macro_rules! whole_numbers {
    ($($int:ty => $max:expr),*) => {$(
        impl FromNode for $int {
            fn ty() -> Type {
                Type::Int { min: i64::try_from(<$int>::MIN).unwrap_or(i64::MIN), max: $max }
            }

            fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
                match node.value {
                    Value::Int(n) => <$int>::try_from(n).ok().or_else(|| {
                        let message = format!("{n} is not within {}..{}", <$int>::MIN, $max);
                        problems.add(node.span, message, "out of range");
                        None
                    }),
                    _ => {
                        wrong_type(node, "a whole number", problems);
                        None
                    }
                }
            }
        }
    )*};
}
whole_numbers!(u16 => i64::from(u16::MAX), u32 => i64::from(u32::MAX), i32 => i64::from(i32::MAX), u64 => i64::MAX, i64 => i64::MAX);

impl FromNode for f64 {
    fn ty() -> Type {
        Type::Float
    }

    #[expect(clippy::cast_precision_loss, reason = "a manifest's numbers are small")]
    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Int(n) => Some(n as f64),
            Value::Float(n) if n.is_finite() => Some(n),
            _ => {
                wrong_type(node, "a number", problems);
                None
            }
        }
    }
}

impl FromNode for String {
    fn ty() -> Type {
        Type::Text { what: "text", example: "" }
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => {
                wrong_type(node, "text", problems);
                None
            }
            _ => {
                wrong_type(node, "text", problems);
                let quoted = format!("put it in quotes: \"{}\"", node.to_json());
                problems.0.last_mut()?.help(quoted);
                None
            }
        }
    }
}

impl<T: FromNode> FromNode for Option<T> {
    fn ty() -> Type {
        T::ty()
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        T::from_node(node, problems).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn ty() -> Type {
        Type::List(Box::new(T::ty()))
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let Value::List(items) = &node.value else {
            wrong_type(node, "a list", problems);
            return None;
        };
        // Every item is read, so that all that is wrong is shown at once.
        let read: Vec<Option<T>> = items.iter().map(|item| T::from_node(item, problems)).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<T: FromNode> FromNode for BTreeMap<String, T> {
    fn ty() -> Type {
        Type::Map(Box::new(T::ty()))
    }

    fn from_node(node: &Node, problems: &mut Problems) -> Option<Self> {
        let Some(entries) = node.entries() else {
            wrong_type(node, "a map", problems);
            return None;
        };
        let read: Vec<Option<(String, T)>> =
            entries.iter().map(|e| T::from_node(&e.node, problems).map(|v| (e.key.clone(), v))).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// Makes [`FromNode`] for a type with [`std::str::FromStr`] whose error says what is wrong: a duration, a size.
#[macro_export]
macro_rules! text_type {
    ($ty:ty, $what:literal, $example:literal) => {
        impl $crate::FromNode for $ty {
            fn ty() -> $crate::Type {
                $crate::Type::Text { what: $what, example: $example }
            }

            fn from_node(node: &$crate::Node, problems: &mut $crate::Problems) -> Option<Self> {
                let text = match &node.value {
                    $crate::Value::Text(text) => text.clone(),
                    $crate::Value::Int(n) => n.to_string(),
                    $crate::Value::Float(n) => n.to_string(),
                    _ => {
                        $crate::field::wrong_type(node, $what, problems);
                        problems.0.last_mut()?.help(concat!("for instance ", $example));
                        return None;
                    }
                };
                match text.parse::<$ty>() {
                    Ok(value) => Some(value),
                    Err(error) => {
                        problems
                            .add(node.span, format!("`{text}` is not {}: {error}", $what), concat!("not ", $what))
                            .help(concat!("for instance ", $example));
                        None
                    }
                }
            }
        }
    };
}

/// Declares a struct that is read from a map of a manifest.
///
/// The doc comments become the reference, the JSON schema's descriptions and the CLI's help. A field of type
/// `Option`, `Vec` or a map may be left out; so may one with `= "default"`; every other must be given. A Rust name
/// becomes a key by writing `-` for `_`; a trailing `_` (for words that Rust keeps to itself) is dropped.
///
/// ```
/// use toprope_model::{fields, Dur, FromNode, Node, Problems};
/// fields! {
///     /// How to wait.
///     pub struct Wait {
///         /// How long.
///         pub for_: Dur,
///         /// How often to look.
///         pub look_every: Dur = "100ms",
///     }
/// }
/// let node = Node::from_json(&serde_json::json!({"for": "2s"}));
/// let mut problems = Problems::default();
/// let wait = Wait::from_node(&node, &mut problems).unwrap();
/// assert_eq!(wait.look_every, "100ms".parse().unwrap());
/// ```
#[macro_export]
macro_rules! fields {
    (
        $(#[doc = $sdoc:expr])*
        $svis:vis struct $name:ident {
            $(
                $(#[doc = $doc:expr])*
                $vis:vis $field:ident : $ty:ty $(= $default:literal)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $sdoc])*
        #[derive(Debug, Clone, PartialEq)]
        $svis struct $name {
            $( $(#[doc = $doc])* $vis $field: $ty, )*
        }

        impl $name {
            /// The keys, as written.
            $svis fn keys() -> Vec<String> {
                vec![$( $crate::field::key_of(stringify!($field)).into_owned() ),*]
            }

            /// The fields as data.
            $svis fn fields() -> Vec<$crate::Field> {
                vec![$( {
                    #[allow(unused_mut, unused_assignments, clippy::allow_attributes, reason = "set only where a default is given")]
                    let default: Option<&'static str> = { let mut d = None; $( d = Some($default); )? d };
                    $crate::Field {
                        key: $crate::field::key_of(stringify!($field)).into_owned(),
                        doc: concat!($($doc, "\n"),*).lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned(),
                        ty: <$ty as $crate::FromNode>::ty(),
                        required: default.is_none() && <$ty as $crate::FromNode>::absent().is_none(),
                        default,
                    }
                } ),*]
            }
        }

        impl $crate::FromNode for $name {
            fn ty() -> $crate::Type {
                $crate::Type::Object(Self::fields())
            }

            #[allow(unused_variables, clippy::allow_attributes, reason = "a struct without fields uses neither")]
            fn from_node(node: &$crate::Node, problems: &mut $crate::Problems) -> Option<Self> {
                if node.entries().is_none() {
                    $crate::field::wrong_type(node, "a map", problems);
                    return None;
                }
                let before = problems.count();
                let keys = Self::keys();
                let known: Vec<&str> = keys.iter().map(String::as_str).collect();
                $crate::field::refuse_unknown_keys(node, &known, "field", problems);
                // Every field is read, so that all that is wrong is shown at once.
                $(
                    #[allow(unused_mut, unused_assignments, clippy::allow_attributes, reason = "set only where a default is given")]
                    let $field: Option<$ty> = {
                        let default: Option<&'static str> = { let mut d = None; $( d = Some($default); )? d };
                        $crate::field::read_field(node, stringify!($field), default, problems)
                    };
                )*
                if problems.count() > before {
                    return None;
                }
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
}

/// Declares an enum whose variants are words in a manifest (kebab-case of the variant's documented word).
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $edoc:expr])*
        $vis:vis enum $name:ident { $( $(#[doc = $doc:expr])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[doc = $edoc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        $vis enum $name { $( $(#[doc = $doc])* #[serde(rename = $word)] $variant ),* }

        impl $name {
            /// All words, in order.
            $vis const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word for this.
            $vis fn word(self) -> &'static str {
                match self { $( Self::$variant => $word ),* }
            }
        }

        impl $crate::FromNode for $name {
            fn ty() -> $crate::Type {
                $crate::Type::Choice(Self::WORDS)
            }

            fn from_node(node: &$crate::Node, problems: &mut $crate::Problems) -> Option<Self> {
                match node.text() {
                    $( Some($word) => Some(Self::$variant), )*
                    Some(other) => {
                        problems.unknown_name(node.span, "word", other, Self::WORDS.iter().copied());
                        None
                    }
                    None => {
                        let words = Self::WORDS.join(", ");
                        $crate::field::wrong_type(node, &format!("one of {words}"), problems);
                        None
                    }
                }
            }
        }
    };
}
