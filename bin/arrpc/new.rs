//! `arrpc new`: the project of a small server, to start from. The files it writes are in `new/`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arrpc::{Value, json};

use crate::failure::Failure;
use crate::send;

/// Where each template goes. `{name}` and `{arrpc}`, the package's name and where its dependency
/// is, are all that is replaced in them.
const FILES: [(&str, &str); 4] = [
    // Under its own name it would be a package in this one, which `cargo publish` leaves out.
    ("Cargo.toml", include_str!("new/manifest.toml")),
    ("src/main.rs", include_str!("new/main.rs")),
    ("README.md", include_str!("new/README.md")),
    (".gitignore", include_str!("new/gitignore")),
];

/// What cannot be the name of a program either: directories where Cargo builds, Rust's own
/// libraries, and the package that it depends on.
const TAKEN: [&str; 9] =
    ["alloc", "arrpc-smol", "build", "core", "deps", "examples", "incremental", "std", "test"];

#[rustfmt::skip]
const KEYWORDS: [&str; 52] = [
    "Self", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue",
    "crate", "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if",
    "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
    "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Only Cargo knows what is published, and says no more than that it did not find the package.
const NOT_PUBLISHED: &str = concat!(
    "If cargo does not find arrpc-smol ",
    env!("CARGO_PKG_VERSION"),
    ", it is not published yet: name a checkout in Cargo.toml instead:\n  \
     arrpc-smol = { path = \"DIR\", default-features = false }\n"
);

const AFTER_HELP: &str = "\
Examples:
  arrpc new calculator --path ../arrpc    # with a checkout of arrpc in ../arrpc
  arrpc new calculator                    # with the package on crates.io, once it is published

Exit codes:
  0  success
  1  a file cannot be written
  2  usage: no name of a package, something of that name exists, no checkout";

/// Write the project of a small server in Rust: a Router of two methods, its test, its README.
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The name of the package, and of the new directory that gets its files
    #[arg(value_name = "NAME", value_parser = package_name)]
    name: String,

    /// Let it depend on the checkout of arrpc in this directory [default: the package on crates.io,
    /// of this command's version]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let name = &arguments.name;
    let source = match &arguments.path {
        None => concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"").to_owned(),
        Some(directory) => format!("path = {}", toml_string(&checkout(directory)?)),
    };
    let arrpc = format!("{{ {source}, default-features = false }}");

    let directory = Path::new(name);
    fs::create_dir(directory).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!("{name} exists already"))
            .hint("choose another name, or another directory to be in"),
        _ => Failure::system(&format!("cannot make the directory {name}"), &error),
    })?;
    for (file, template) in FILES {
        // The path, last, may have braces of its own.
        let text = template.replace("{name}", name).replace("{arrpc}", &arrpc);
        let file = directory.join(file);
        write(&file, &text).map_err(|error| {
            Failure::system(&format!("cannot write {}", file.display()), &error)
        })?;
    }
    let otherwise = match arguments.path {
        Some(_) => "",
        None => NOT_PUBLISHED,
    };
    send::print(&format!(
        "Made the server {name}. Run it:\n  cd {name}\n  cargo run\n{otherwise}\
         Try it from another terminal:\n  arrpc call 127.0.0.1:8080 calculator.plus 10 20"
    ))
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(file, text)
}

/// Reads a name that is good for a package, its directory and its program.
fn package_name(text: &str) -> Result<String, String> {
    let is_form = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match text {
        _ if !is_form || text.len() > 64 => Err(
            "a package's name is ASCII letters, digits, - and _, begins with a letter, and has 64 \
             characters at most"
                .to_owned(),
        ),
        _ if KEYWORDS.contains(&text) => Err("this is a keyword of Rust".to_owned()),
        _ if TAKEN.contains(&text) => {
            Err("this name is taken, by Rust, Cargo or this package".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

/// The absolute path of a checkout, for a `Cargo.toml` somewhere else.
fn checkout(directory: &Path) -> Result<String, Failure> {
    let unusable = |problem: &str| {
        Failure::usage(format!("--path {}: {problem}", directory.display()))
            .hint("give the directory of a checkout of arrpc, in which its Cargo.toml is")
    };
    let manifest = fs::read_to_string(directory.join("Cargo.toml"))
        .map_err(|error| unusable(&format!("cannot read its Cargo.toml: {error}")))?;
    if !manifest.contains("name = \"arrpc-smol\"") {
        return Err(unusable("its Cargo.toml is not that of arrpc-smol"));
    }
    let absolute = directory.canonicalize().map_err(|error| unusable(&error.to_string()))?;
    let text = absolute.into_os_string().into_string();
    text.map_err(|_| unusable("Cargo takes only paths in UTF-8"))
}

/// Writes a string for TOML, whose escapes are those of JSON.
fn toml_string(text: &str) -> String {
    json::to_string(&Value::from(text)).replace('\u{7f}', r"\u007f")
}
