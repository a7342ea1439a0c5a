//! `arrpc new`: what it writes, and that this is a project that works.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::command::{Ended, arrpc, run};
use crate::peers::{INSTALL_LIMIT, Running, output};
use crate::python;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// A directory to make projects in, until it is dropped.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test} {}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = arrpc(&[&["new"], arguments].concat());
        command.current_dir(&self.0);
        run(command, "")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_project_has_its_name_and_where_the_crate_is() {
    let place = Place::new("new project");
    let made = place.run(&["my-calculator"]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""));
    assert!(made.stdout.contains("cd my-calculator\n  cargo run\n"), "{made:?}");
    let otherwise = concat!("If cargo does not find arrpc-smol ", env!("CARGO_PKG_VERSION"), ",");
    let dependency = "  arrpc-smol = { path = \"DIR\", default-features = false }\n";
    assert!(made.stdout.contains(otherwise) && made.stdout.contains(dependency), "{made:?}");
    let manifest = place.read("my-calculator/Cargo.toml");
    let published = concat!(
        "arrpc-smol = { version = \"",
        env!("CARGO_PKG_VERSION"),
        "\", default-features = false }"
    );
    assert!(manifest.contains("name = \"my-calculator\""), "{manifest}");
    assert!(manifest.contains(published), "{manifest}");
    assert!(place.read("my-calculator/README.md").starts_with("# my-calculator\n"));
    assert_eq!(place.read("my-calculator/.gitignore"), "/target\n");
    assert!(place.read("my-calculator/src/main.rs").contains("fn main()"));

    let made = place.run(&["local", "--path", CRATE]);
    assert!(!made.stdout.contains("If cargo"), "{made:?}");
    let local = format!("arrpc-smol = {{ path = {CRATE:?}, default-features = false }}");
    assert!(place.read("local/Cargo.toml").contains(&local));
}

#[test]
fn nothing_is_overwritten() {
    let place = Place::new("new twice");
    fs::create_dir(place.0.join("empty")).unwrap();
    fs::write(place.0.join("file"), "mine").unwrap();
    for name in ["empty", "file"] {
        let text = format!("arrpc: {name} exists already\nhint: choose another name");
        place.run(&[name]).check(2, &[&text]);
    }
    assert_eq!(fs::read_dir(place.0.join("empty")).unwrap().count(), 0);
    assert_eq!(place.read("file"), "mine");
}

#[test]
fn a_name_or_path_that_cannot_work_is_exit_code_2() {
    let place = Place::new("new names");
    let form = "a package's name is ASCII letters, digits, - and _, begins with a letter";
    let long = "a".repeat(65);
    for (name, text) in [
        ("", form),
        ("1st", form),
        ("_x", form),
        ("../x", form),
        ("a/b", form),
        ("a b", form),
        ("a.b", form),
        ("é", form),
        (&long, form),
        ("fn", "keyword of Rust"),
        ("test", "this name is taken"),
        ("arrpc-smol", "this name is taken"),
    ] {
        place.run(&[name]).check(2, &["'<NAME>'", text]);
    }
    place.run(&[]).check(2, &["<NAME>"]);
    let checkout = "hint: give the directory of a checkout of arrpc";
    place.run(&["x", "--path", "none"]).check(2, &["--path none: cannot read", checkout]);
    fs::write(place.0.join("Cargo.toml"), "[package]\nname = \"other\"\n").unwrap();
    place.run(&["x", "--path", "."]).check(2, &["is not that of arrpc-smol", checkout]);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
}

#[test]
#[ignore = "builds the crate and all it depends on, twice, in a directory of its own: 85 s at first, 3 s later"]
fn a_project_builds_and_does_what_its_readme_says() {
    let place = Place::new("new build");
    assert_eq!(place.run(&["calculator", "--path", CRATE]).code, 0);
    // The versions that are there without a network.
    fs::copy(Path::new(CRATE).join("Cargo.lock"), place.0.join("calculator/Cargo.lock")).unwrap();

    // In rustfmt's own style, not in that of the directories above.
    cargo(&place, &["fmt", "--check", "--", "--config", "use_small_heuristics=Default"]);
    let tested = cargo(&place, &["test", "--offline"]);
    assert!(tested.contains("test result: ok. 1 passed"), "{tested}");
    cargo(&place, &["clippy", "--offline", "--all-targets", "--", "-D", "warnings"]);

    let main = place.read("calculator/src/main.rs");
    let any_port = main.replacen("8080", "0", 1);
    fs::write(place.0.join("calculator/src/main.rs"), any_port).unwrap();
    cargo(&place, &["build", "--offline"]);
    let mut server = Running::start(Command::new(target().join("debug/calculator"))).unwrap();
    let listening = server.line().unwrap();
    let addr = listening.strip_prefix("Listening on ").unwrap();
    check_readme(&place.read("calculator/README.md"), addr);
}

/// Does what the README says, with the server at `addr`.
fn check_readme(readme: &str, addr: &str) {
    let port = addr.strip_prefix("127.0.0.1:").unwrap();
    let calls = readme.lines().filter_map(|line| line.strip_prefix("arrpc "));
    let printed: String = calls
        .map(|line| {
            let (line, expected) = line.split_once(" # ").unwrap_or((line, ""));
            let line = line.replace("8080", port);
            let Ended { stdout, stderr, .. } =
                run(arrpc(&line.split_whitespace().collect::<Vec<_>>()), "");
            let printed = stdout + &stderr;
            assert!(printed.contains(expected), "{line}: {printed}");
            printed
        })
        .collect();
    let listed = "calculator.divide(a: f64, b: f64) -> f64\ncalculator.plus(a: i64, b: i64) -> i64  (id 1)\n";
    assert_eq!(printed, format!("{listed}30\narrpc: [division_by_zero] b must not be 0\n"));

    let (_, snippet) = readme.split_once("```python\n").unwrap();
    let (snippet, _) = snippet.split_once("```").unwrap();
    let mut python = python::command();
    python.args(["-c", &snippet.replace("8080", port)]);
    assert_eq!(output(python, "", INSTALL_LIMIT).unwrap(), "30\n");
}

/// What Cargo prints in the project. Its target directory is its own, as that of these tests may be
/// locked, and stays, as it takes long to fill.
#[track_caller]
fn cargo(place: &Place, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(place.0.join("calculator"));
    command.env("CARGO_TARGET_DIR", target()).env("CARGO_PROFILE_DEV_DEBUG", "0"); // faster
    output(command, "", INSTALL_LIMIT).unwrap_or_else(|error| panic!("{error}"))
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("new-project")
}
