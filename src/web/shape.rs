//! The shapes of parameters: how they are described, and whether a request keeps to them.

use serde_json::{Map, Value, json};

use crate::web::answer::Problem;

/// A parameter: its name, which ends with `?` if it is optional, and its description.
pub type Parameter = (&'static str, &'static str);

/// The shape of a value.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Text,
    /// A whole number.
    Count,
    Percent,
    Flag,
    Texts,
    /// Whole numbers by name.
    Counts,
    /// The target of a restore.
    Target,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// The name without the mark of optional ones.
fn bare(name: &str) -> &str {
    name.trim_end_matches('?')
}

/// Whether a parameter has to be given.
fn is_needed(name: &str) -> bool {
    !name.ends_with('?')
}

/// The shape of a route's parameter.
fn shape(route: &str, name: &str) -> Shape {
    match (bare(name), route) {
        ("id", "job" | "stop") | ("from" | "count" | "depth" | "plan", _) => Shape::Count,
        ("sample", _) => Shape::Percent,
        ("delete" | "verify" | "dry_run" | "write" | "estimate", _) => Shape::Flag,
        ("names", _) => Shape::Texts,
        ("rules", _) => Shape::Counts,
        ("to", _) => Shape::Target,
        ("overwrite", _) => Shape::Word(&["refuse", "if-changed", "keep-newer-copy", "always", "never"]),
        _ => Shape::Text,
    }
}

impl Shape {
    /// As JSON Schema.
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({ "type": "string" }),
            Self::Count => json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }),
            Self::Percent => json!({ "type": "number", "minimum": 0, "maximum": 100 }),
            Self::Flag => json!({ "type": "boolean" }),
            Self::Texts => json!({ "type": "array", "items": { "type": "string" } }),
            Self::Counts => json!({
                "type": "object",
                "additionalProperties": { "type": "integer", "minimum": 0, "maximum": u64::MAX },
            }),
            Self::Target => json!({ "oneOf": [
                { "const": "in-place" },
                {
                    "type": "object",
                    "properties": { "folder": { "type": "string" } },
                    "required": ["folder"],
                },
            ] }),
            Self::Word(words) => json!({ "enum": words }),
        }
    }

    /// Whether a value has this shape.
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Count => value.is_u64(),
            Self::Percent => value.as_f64().is_some_and(|part| (0.0..=100.0).contains(&part)),
            Self::Flag => value.is_boolean(),
            Self::Texts => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            Self::Counts => value.as_object().is_some_and(|all| all.values().all(Value::is_u64)),
            Self::Target => value == "in-place" || value.get("folder").is_some_and(Value::is_string),
            Self::Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
        }
    }
}

/// The body of a request, described.
pub fn body(route: &str, parameters: &[Parameter]) -> Value {
    let field = |(name, what): &Parameter| {
        let mut schema = shape(route, name).schema();
        schema["description"] = (*what).into();
        (bare(name).to_owned(), schema)
    };
    let fields: Map<String, Value> = parameters.iter().map(field).collect();
    let needed: Vec<_> = parameters.iter().filter(|(name, _)| is_needed(name)).map(|(name, _)| bare(name)).collect();
    let schema = json!({ "type": "object", "properties": fields, "required": needed });
    json!({ "required": true, "content": { "application/json": { "schema": schema } } })
}

/// The parameters of an address, described.
pub fn query(route: &str, parameters: &[Parameter]) -> Value {
    let parameter = |(name, what): &Parameter| {
        json!({
            "name": bare(name), "in": "query", "description": what, "required": is_needed(name),
            "schema": shape(route, name).schema(),
        })
    };
    parameters.iter().map(parameter).collect()
}

/// Refuses the body of a request that lacks something, or has a value of another shape.
///
/// # Errors
/// The name of the parameter.
pub fn check(route: &str, parameters: &[Parameter], request: &Value) -> Result<(), Problem> {
    let fields = request.as_object().ok_or_else(|| Problem::usage("the request is no object"))?;
    for (full, what) in parameters {
        let name = bare(full);
        match fields.get(name) {
            Some(value) if !shape(route, name).fits(value) => {
                return Err(Problem::usage(format!("{name} has another form: it is {what}")));
            }
            None if is_needed(full) => {
                return Err(Problem::usage(format!("{name} is missing: {what}")));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_to_the_description() {
        let all: &[Parameter] =
            &[("snapshot", "x"), ("to", "x"), ("plan?", "x"), ("sample?", "x"), ("verify?", "x"), ("names?", "x")];
        let is_good = |more: Value| {
            let mut request = json!({ "snapshot": "1", "to": "in-place" });
            for (name, value) in more.as_object().unwrap() {
                request[name] = value.clone();
            }
            check("restore", all, &request).is_ok()
        };
        for good in [
            json!({}),
            json!({ "to": { "folder": "/x" }, "plan": 7, "verify": true, "unknown": {} }),
            json!({ "sample": 2.5, "names": [] }),
            json!({ "names": ["a"] }),
        ] {
            assert!(is_good(good.clone()), "{good}");
        }
        for bad in [
            json!({ "snapshot": null }),
            json!({ "snapshot": 1 }),
            json!({ "to": "elsewhere" }),
            json!({ "to": { "folder": 1 } }),
            json!({ "plan": -1 }),
            json!({ "plan": "7" }),
            json!({ "sample": 101 }),
            json!({ "verify": null }),
            json!({ "names": [1] }),
        ] {
            assert!(!is_good(bad.clone()), "{bad}");
        }
        assert!(check("restore", all, &json!({ "to": "in-place" })).unwrap_err().what.contains("snapshot is missing"));
        assert!(check("restore", all, &json!([])).is_err() && check("leave", &[], &json!(1)).is_err());
    }
}
