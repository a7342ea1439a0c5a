//! The short names of types and functions, for labels and messages.

/// The last part of a type's name: `handler` for `my_program::handler`, `closure` for a closure.
/// What a wrapper of this crate made of a function has the function's name.
pub(crate) fn short_name<T: ?Sized>() -> &'static str {
    shorten(std::any::type_name::<T>())
}

fn shorten(mut path: &'static str) -> &'static str {
    // `arrpc::..::blocking<my_program::handler, ..>::{{closure}}`
    while let Some((wrapper, wrapped)) = path.split_once('<')
        && wrapper.starts_with("arrpc::")
        && !wrapper.contains(',')
    {
        path = wrapped;
    }
    // The first of a wrapper's parameters, up to a comma that is not inside another type.
    let mut depth = 0;
    let end = path.char_indices().find_map(|(index, character)| {
        match character {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        (depth < 0 || (depth == 0 && character == ',')).then_some(index)
    });
    let path = path.get(..end.unwrap_or(path.len())).unwrap_or(path);
    if path.ends_with("{{closure}}") {
        return "closure";
    }
    if path.starts_with(['(', '[', '&']) {
        return path; // a tuple, a slice, a reference: types without a name
    }
    let path = path.split('<').find(|part| !part.is_empty()).unwrap_or(path);
    path.rsplit("::").find(|part| !part.is_empty()).unwrap_or(path)
}

/// An identifier without the `r#` that lets it be a keyword.
pub(crate) fn bare(identifier: &str) -> &str {
    identifier.strip_prefix("r#").unwrap_or(identifier)
}

/// A type's name without the paths in it: `Vec<Option<Point>>`.
pub(crate) fn readable(type_name: &str) -> String {
    let is_separator = |character: char| !(character.is_alphanumeric() || "_:".contains(character));
    let parts = type_name.split_inclusive(is_separator);
    parts.map(|part| part.rsplit_once("::").map_or(part, |(_, name)| name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readable_name_has_no_paths() {
        for (type_name, expected) in [
            ("i64", "i64"),
            ("alloc::string::String", "String"),
            ("alloc::vec::Vec<core::option::Option<my_program::Point>>", "Vec<Option<Point>>"),
            ("(u8, alloc::string::String)", "(u8, String)"),
            ("[f64; 3]", "[f64; 3]"),
            ("&str", "&str"),
            ("()", "()"),
        ] {
            assert_eq!(readable(type_name), expected);
        }
    }

    #[test]
    fn a_name_is_the_last_part_of_a_path_and_a_closure_is_a_closure() {
        for (path, expected) in [
            ("handler", "handler"),
            ("my_program::handler", "handler"),
            ("my_program::Division", "Division"),
            ("my_program::Pair<u8, core::option::Option<u8>>", "Pair"),
            ("my_program::main::{{closure}}", "closure"),
            ("<my_program::A as my_program::B>::run::{{closure}}", "closure"),
            ("my_program::Generic<T>::make::{{closure}}", "closure"),
            ("my_program::generic::<u8>", "generic"),
            ("(u8, core::option::Option<u8>)", "(u8, core::option::Option<u8>)"),
            ("alloc::vec::Vec<(u8, u8)>", "Vec"),
            ("arrpc::server::handler::blocking<my_program::handler, u8>::{{closure}}", "handler"),
            ("arrpc::services::typed::typed<my_program::handler, u8, u8>::{{closure}}", "handler"),
            ("arrpc::services::typed::typed<p::main::{{closure}}, u8>::{{closure}}", "closure"),
            ("arrpc::services::typed::typed<<p::A as p::B>::run::{{closure}}, u8>", "closure"),
        ] {
            assert_eq!(shorten(path), expected, "{path}");
        }
    }
}
