//! Programs that some tests need beside Rust: found, installed where that is possible, or named as missing.
//!
//! The convention between here and the tests: a test that needs a tool gets its path in a variable of the
//! environment. Without the variable (a plain `cargo test`) it prints a line that begins with `skipped: ` and
//! returns. `cargo xtask test` sets the variables; see [`NEEDS`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Error, Result, ensure};

use crate::cargo::{run, work_dir};

/// A variable for a test, or a sentence about what is missing and how to get it.
pub type Environment = Result<Vec<(&'static str, OsString)>, String>;

/// A test program (`tests/<name>.rs` in `package`) that gets variables.
pub struct Need {
    pub package: &'static str,
    pub name: &'static str,
    pub environment: fn() -> Environment,
}

pub const NEEDS: [Need; 9] = [
    // The built server beside it, which is there by then; it takes half a minute. Without POSTGRES_BIN and
    // REDIS_SERVER it leaves out the cluster.
    Need { package: "bench", name: "smoke", environment: cluster },
    // What it takes for smoke, and NGINX and HAPROXY: paths of the proxies.
    Need { package: "bench", name: "cluster", environment: cluster_behind_proxies },
    // CHROMIUM and CHROMEDRIVER: paths of the browser and its WebDriver server.
    Need { package: "server", name: "browser", environment: browser },
    // MAGPIE_TEST_PYTHON: path of a Python that can import `websockets`.
    Need { package: "server", name: "plain_clients", environment: python },
    // Python and curl, in which the bots of docs/bots.md are written; looked for on the PATH.
    Need { package: "server", name: "bots", environment: scripts },
    // REDIS_SERVER: path of the server of Redis.
    Need { package: "server", name: "redis", environment: redis },
    // REDIS_SERVER and POSTGRES_BIN.
    Need { package: "server", name: "nodes", environment: cluster },
    // POSTGRES_BIN: the folder of PostgreSQL's programs.
    Need { package: "server", name: "migrate", environment: postgres },
    // strace, which shows the order of system calls; looked for on the PATH.
    Need { package: "server", name: "durability", environment: strace },
];

/// What some tests of a program need, whose others run without: those that miss it say that they are skipped.
pub const WISHES: [Need; 1] = [
    // POSTGRES_BIN: the folder of PostgreSQL's programs.
    Need { package: "server", name: "server", environment: postgres },
];

/// The folder of a PostgreSQL's programs, which Debian does not put on the PATH.
fn postgres() -> Environment {
    let find = || {
        let named = std::env::var_os("POSTGRES_BIN").map(PathBuf::from);
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let on_path =
            on_path("postgres").and_then(|file| Some(file.canonicalize().ok()?.parent()?.to_owned()));
        let mut folders =
            named.into_iter().chain(versions.map(|version| version.path().join("bin"))).chain(on_path);
        let folder = folders.find(|folder| folder.join("postgres").is_file())?;
        Some(vec![("POSTGRES_BIN", folder.into_os_string())])
    };
    find().or_else(|| apt_install(&["postgresql"]).then(find)?).ok_or_else(|| {
        "no PostgreSQL: install it (Debian: apt-get install postgresql), or name the folder of its programs in \
         POSTGRES_BIN"
            .to_owned()
    })
}

/// How tests are told of a browser that is not on the PATH, which these variables may name beforehand too.
fn browser() -> Environment {
    let find = || {
        let chromium = find("CHROMIUM", &["chromium", "chromium-browser", "google-chrome"])?;
        Some(vec![("CHROMIUM", chromium), ("CHROMEDRIVER", find("CHROMEDRIVER", &["chromedriver"])?)])
    };
    find().or_else(|| apt_install(&["chromium", "chromium-driver"]).then(find)?).ok_or_else(|| {
        "no Chromium with chromedriver: install them (Debian: apt-get install chromium chromium-driver), or \
             name their paths in CHROMIUM and CHROMEDRIVER"
            .to_owned()
    })
}

fn scripts() -> Environment {
    let are_there = || on_path("python3").is_some() && on_path("curl").is_some();
    let is_ready = are_there() || apt_install(&["python3", "curl"]) && are_there();
    if is_ready { Ok(vec![]) } else { Err("no python3 or no curl: install both".into()) }
}

fn strace() -> Environment {
    let is_there = on_path("strace").is_some() || apt_install(&["strace"]);
    if is_there { Ok(vec![]) } else { Err("no strace: install it (Debian: apt-get install strace)".into()) }
}

fn redis() -> Environment {
    let find = || find("REDIS_SERVER", &["redis-server"]);
    let redis = find().or_else(|| apt_install(&["redis-server"]).then(find)?);
    let missing = "no redis-server: install it (Debian: apt-get install redis-server), or name its path in \
                   REDIS_SERVER";
    redis.map(|redis| vec![("REDIS_SERVER", redis)]).ok_or_else(|| missing.to_owned())
}

/// What several nodes need: PostgreSQL and Redis.
pub fn cluster() -> Environment {
    Ok([postgres()?, redis()?].concat())
}

fn cluster_behind_proxies() -> Environment {
    let proxy = |variable, name: &str| {
        let find = || find(variable, &[name]).or_else(|| sbin(name).map(PathBuf::into_os_string));
        let proxy = find().or_else(|| apt_install(&[name]).then(find)?);
        let missing =
            format!("no {name}: install it (Debian: apt-get install {name}), or name its path in {variable}");
        proxy.map(|proxy| (variable, proxy)).ok_or(missing)
    };
    let mut environment = cluster()?;
    environment.extend([proxy("NGINX", "nginx")?, proxy("HAPROXY", "haproxy")?]);
    Ok(environment)
}

/// A program that is only on the PATH of administrators.
fn sbin(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/local/sbin"]
        .map(|folder| Path::new(folder).join(name))
        .into_iter()
        .find(|file| file.is_file())
}

fn python() -> Environment {
    let python = python_with("python", "websockets", "websockets>=15")?;
    Ok(vec![("MAGPIE_TEST_PYTHON", python.into_os_string())])
}

/// A Python 3 in an environment of its own, with one package from PyPI; `module` is what that provides.
fn python_with(name: &str, module: &str, package: &str) -> Result<PathBuf, String> {
    let missing =
        |what: &str| format!("{what}: install Python 3 with venv (Debian: apt-get install python3-venv)");
    let directory = work_dir().map_err(|error| error.to_string())?.join(name);
    let python = program_in(&directory, "python");
    let ready = |python: &Path| quiet(Command::new(python).args(["-c", &format!("import {module}")]));
    if !ready(&python) {
        let create = || {
            let system = find("PYTHON", &["python3", "python"])?;
            quiet(Command::new(system).args(["-m", "venv", "--clear"]).arg(&directory)).then_some(())
        };
        create()
            .or_else(|| apt_install(&["python3", "python3-venv"]).then(create)?)
            .ok_or_else(|| missing("no Python that can make a virtual environment"))?;
        pip_install(&python, package)?;
        if !ready(&python) {
            return Err(missing(&format!("the new virtual environment cannot import {module}")));
        }
    }
    Ok(python)
}

/// Why [`wstest`] finds nothing.
pub const NO_PYTHON_2: &str = "no Python 2.7, which the Autobahn suite needs: put python2.7 on the PATH, or \
                               install one with pyenv (pyenv install 2.7.18)";

/// The Autobahn suite's program, in an environment of its own; `None` without a Python 2.7.
///
/// # Errors
/// The environment could not be made.
pub fn wstest() -> Result<Option<PathBuf>> {
    let Some(python2) = python2() else { return Ok(None) };
    let directory = work_dir()?.join("autobahn-python");
    let wstest = program_in(&directory, "wstest");
    if !quiet(Command::new(&wstest).arg("--autobahnversion")) {
        // The last virtualenv that makes environments for Python 2.7.
        let python = python_with("virtualenv", "virtualenv", "virtualenv==20.21.1").map_err(Error::msg)?;
        let virtualenv = ["-m", "virtualenv", "--quiet", "--clear", "--python"];
        run(Command::new(python).args(virtualenv).arg(python2).arg(&directory))?;
        pip_install(&program_in(&directory, "python"), "autobahntestsuite==25.10.1").map_err(Error::msg)?;
        ensure!(wstest.is_file(), "the Autobahn suite has no program wstest");
    }
    Ok(Some(wstest))
}

/// A Python 2.7 that runs: on the PATH, or one of pyenv's.
fn python2() -> Option<PathBuf> {
    let on_path = ["python2.7", "python2"].iter().filter_map(|name| on_path(name));
    let pyenv = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(std::env::home_dir()?.join(".pyenv")));
    let versions = pyenv.and_then(|root| std::fs::read_dir(root.join("versions")).ok());
    let versions = versions.into_iter().flatten().filter_map(Result::ok);
    let versions = versions.filter(|entry| entry.file_name().to_string_lossy().starts_with("2.7"));
    // What is on the PATH may be pyenv's stand-in for one that is not selected: only running it tells.
    let is_python2 = "import sys; sys.exit(sys.version_info[:2] != (2, 7))";
    on_path
        .chain(versions.map(|entry| entry.path().join("bin/python")))
        .find(|python| quiet(Command::new(python).args(["-c", is_python2])))
}

/// A program of a Python environment.
fn program_in(environment: &Path, name: &str) -> PathBuf {
    environment.join(if cfg!(windows) { format!("Scripts/{name}.exe") } else { format!("bin/{name}") })
}

fn pip_install(python: &Path, package: &str) -> Result<(), String> {
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package];
    let mut install = Command::new(python);
    // That Python 2.7 has reached its end is known.
    run(install.args(pip).env("PIP_NO_PYTHON_VERSION_WARNING", "1")).map_err(|error| error.to_string())
}

/// The program that a variable names, or else the first of `names` on the PATH.
fn find(variable: &str, names: &[&str]) -> Option<OsString> {
    let named = std::env::var_os(variable).filter(|path| Path::new(path).is_file());
    named.or_else(|| names.iter().find_map(|name| on_path(name)).map(PathBuf::into_os_string))
}

/// A program on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Installs Debian packages, if this is a Debian and we are root. Returns whether that worked.
fn apt_install(packages: &[&str]) -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !root || on_path("apt-get").is_none() {
        return false;
    }
    eprintln!("Installing {} with apt-get.", packages.join(", "));
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let install = ["install", "--yes", "--quiet", "--no-install-recommends"];
    run(apt().args(["update", "--quiet"])).is_ok() && run(apt().args(install).args(packages)).is_ok()
}

/// Runs a command without its output; whether it ended well.
fn quiet(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
