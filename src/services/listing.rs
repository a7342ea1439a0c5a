//! What a router tells of its methods.

use std::collections::HashMap;

use super::method::AnyMethod;
use crate::{Value, value};

/// Lists methods by their names: each as a map of `name`, `id` (a number or nil), `params` (an
/// array of maps of `name` and `type`), `result` and `doc`. Types are those of Rust.
pub(crate) fn list(methods: &HashMap<String, AnyMethod>, ids: &HashMap<u16, String>) -> Value {
    let mut of_names: HashMap<&str, u16> = HashMap::new();
    for (id, name) in ids {
        let lowest = of_names.entry(name).or_insert(*id);
        *lowest = (*lowest).min(*id);
    }
    let mut methods: Vec<_> = methods.values().collect();
    methods.sort_by_key(|method| &method.name);
    let describe = |method: &AnyMethod| {
        let (name, about) = (&method.name, &method.description);
        let id = of_names.get(name.as_str()).copied();
        let param = |(name, kind): &(&str, String)| value!({"name": *name, "type": kind.as_str()});
        value!({
            "name": name.as_str(),
            "id": id.map_or(Value::Nil, Value::from),
            "params": Value::Array(about.params.iter().map(param).collect()),
            "result": about.result.as_str(),
            "doc": method.doc.as_str(),
        })
    };
    Value::Array(methods.into_iter().map(describe).collect())
}
