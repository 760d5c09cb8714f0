//! Builds the browser client and turns it into a table of bytes for `src/assets.rs`.
//!
//! `index.html` is the one list of what the page needs: its `<link data-trunk …>` tags are read by Trunk
//! during development and by this script in every other build. A tag that this script does not know fails
//! the build, so that the two cannot drift.
//!
//! The steps: a nested cargo builds the client for wasm32; wasm-bindgen writes the JavaScript glue; every
//! file but the page gets a name with its content's hash; all are compressed with brotli and gzip.
//!
//! The client is two programs, so that a first visit does not load what is seldom used: the one of
//! `data-first-bin` has the chat alone and goes into the page at `/`, the one of `data-bin` has everything
//! and goes into the page at `/desk`. They are alike but for the program.
//!
//! Two variables steer it:
//! - `MAGPIE_NO_CLIENT=1` embeds a one-line page in place of the client, for a quick `cargo check`.
//! - `MAGPIE_CLIENT_PROFILE` names the cargo profile of the client (`wasm-dev` or `wasm-release`); without
//!   it, a release server gets `wasm-release` and any other gets `wasm-dev`.
//!
//! It must not know what the server does with the assets.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lol_html::html_content::{ContentType, Element};
use lol_html::{RewriteStrSettings, doc_comments, element, rewrite_str};
use sha2::{Digest, Sha256};
use wasm_bindgen_cli_support::Bindgen;

const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What the client is made of. The server's own sources are not here: editing them must not build the client.
/// Neither are the tests of `client` and `shared`.
const SOURCES: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "index.html",
    "client/Cargo.toml",
    "client/src",
    "client/style.css",
    "client/assets",
    "shared/Cargo.toml",
    "shared/src",
    "server/build.rs",
];

/// Stands in the page where the tags of a program go.
const PROGRAM_PLACE: &str = "<link rel=\"program\">";
/// Where the page with the whole program is among the assets; src/assets.rs has the same.
const WHOLE_PAGE_PATH: &str = "/desk";

const PAGE_WITHOUT_CLIENT: &str = "<!doctype html><meta charset=\"utf-8\"><title>Magpie</title>\
    <p>This server was built without its client, because MAGPIE_NO_CLIENT was set.</p>\n";

fn main() {
    if let Err(error) = run() {
        // One line for each cause, without the backtrace that RUST_BACKTRACE would add.
        for cause in error.chain() {
            eprintln!("{cause}");
        }
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    println!("cargo::rerun-if-env-changed=MAGPIE_NO_CLIENT");
    println!("cargo::rerun-if-env-changed=MAGPIE_CLIENT_PROFILE");
    let root = workspace_root()?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }

    if env::var_os("MAGPIE_NO_CLIENT").is_some_and(|value| value == "1") {
        let mut bundle = Bundle::new(Level::Fast)?;
        bundle.add_page(PAGE_WITHOUT_CLIENT)?;
        return bundle.write_table();
    }

    let profile = client_profile()?;
    let mut bundle = Bundle::new(if profile == "wasm-release" { Level::Best } else { Level::Fast })?;
    let page = fs::read_to_string(root.join("index.html")).context("reading index.html")?;
    let page = rewrite_page(&page, |tag| replace_link(tag, &root, &profile, &mut bundle))?;
    let [first, whole] = std::mem::take(&mut bundle.programs);
    bundle.add_page(&page.replace(PROGRAM_PLACE, &first))?;
    bundle.add(WHOLE_PAGE_PATH, page.replace(PROGRAM_PLACE, &whole).into_bytes(), Kind::Named)?;
    bundle.write_table()
}

fn workspace_root() -> Result<PathBuf> {
    let server = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?);
    Ok(server.parent().context("the server crate has no parent directory")?.to_owned())
}

fn client_profile() -> Result<String> {
    match env::var("MAGPIE_CLIENT_PROFILE") {
        Ok(profile) if !profile.is_empty() => {
            ensure!(
                profile == "wasm-dev" || profile == "wasm-release",
                "MAGPIE_CLIENT_PROFILE is {profile:?}; it can be wasm-dev or wasm-release"
            );
            Ok(profile)
        }
        _ if env::var("PROFILE").as_deref() == Ok("release") => Ok("wasm-release".to_owned()),
        _ => Ok("wasm-dev".to_owned()),
    }
}

// ---- The page ----

/// Calls `replace` for each `<link data-trunk>`, and drops comments, which are for readers of the source.
fn rewrite_page(page: &str, mut replace: impl FnMut(&mut Element) -> Result<()>) -> Result<String> {
    let settings = RewriteStrSettings::new()
        .append_element_content_handler(element!("[data-trunk]", |tag| Ok(replace(tag)?)))
        .append_document_content_handler(doc_comments!(|comment| {
            comment.remove();
            Ok(())
        }));
    rewrite_str(page, settings).context("rewriting index.html")
}

/// Does what Trunk does for the same tag, and puts into its place what a browser understands.
fn replace_link(tag: &mut Element, root: &Path, profile: &str, bundle: &mut Bundle) -> Result<()> {
    let rel = tag.get_attribute("rel").unwrap_or_default();
    let href = tag.get_attribute("href").context("a data-trunk link in index.html has no href")?;
    let source = root.join(&href);
    let read = || fs::read(&source).with_context(|| format!("index.html links to {href}"));
    let file_name = source.file_name().and_then(|name| name.to_str()).context("href names no file")?;

    match rel.as_str() {
        "rust" => {
            let bin = |name| {
                tag.get_attribute(name).with_context(|| format!("the rust link in index.html has no {name}"))
            };
            let (first, whole) = (bin("data-first-bin")?, bin("data-bin")?);
            let directory = build_client(root, &source, &[&first, &whole], profile)?;
            bundle.programs = [
                bundle.add_program(&directory, &first, Kind::Hashed)?,
                bundle.add_program(&directory, &whole, Kind::Later)?,
            ];
            tag.replace(PROGRAM_PLACE, ContentType::Html);
        }
        "css" => {
            let url = bundle.add_hashed(file_name, read()?, Kind::Hashed)?;
            tag.replace(&format!("<link rel=\"stylesheet\" href=\"{url}\">"), ContentType::Html);
        }
        "icon" => {
            let url = bundle.add_hashed(file_name, read()?, Kind::Hashed)?;
            tag.remove_attribute("data-trunk");
            tag.set_attribute("href", &url)?;
        }
        "copy-file" => {
            bundle.add(&format!("/{file_name}"), read()?, Kind::Named)?;
            tag.remove();
        }
        other => bail!(
            "index.html has <link data-trunk rel=\"{other}\">, which server/build.rs does not know; it knows \
             rust, css, icon and copy-file"
        ),
    }
    Ok(())
}

// ---- The client ----

/// Runs cargo for the client's programs and returns the directory of their wasm files.
///
/// Its target directory is its own, since the outer cargo holds the lock of the usual one until we return.
/// It is fixed (not below OUT_DIR) since check, clippy, test and build would each compile the client anew.
fn build_client(root: &Path, manifest: &Path, bins: &[&str], profile: &str) -> Result<PathBuf> {
    ensure_wasm_target()?;
    let target_dir = outer_target_dir()?.join("client");
    let mut cargo = Command::new(env::var_os("CARGO").context("CARGO is not set")?);
    cargo.current_dir(root).args(["build", "--locked", "--target", WASM_TARGET, "--profile", profile]);
    cargo
        .args(bins.iter().flat_map(|bin| ["--bin", bin]))
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target_dir);
    if profile == "wasm-release"
        && let Some(home) = cargo_home()
    {
        // Panics name the file they come from: without this, a path of the machine that built it.
        let flag = format!("--remap-path-prefix={}=cargo", home.display());
        cargo.arg("--config").arg(format!("target.{WASM_TARGET}.rustflags=[{flag:?}]"));
    }
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_build) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.status().context("starting cargo for the client")?;
    ensure!(status.success(), "the client did not compile; its errors are above");
    Ok(target_dir.join(WASM_TARGET).join(profile))
}

/// Where cargo keeps the sources of other crates.
fn cargo_home() -> Option<PathBuf> {
    let default = || env::home_dir().map(|home| home.join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(default)
}

/// Whether a variable describes the server's build, and would therefore mislead the client's. Flags are
/// among them: cargo sets CARGO_ENCODED_RUSTFLAGS even when it is empty, and it would override the flags in
/// the configuration. Proxies, registries and the jobserver (CARGO_MAKEFLAGS) stay.
fn belongs_to_outer_build(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_PRIMARY_PACKAGE",
        "MAGPIE_CLIENT_PROFILE",
    ];
    const PREFIXES: [&str; 4] = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_MANIFEST_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The directory that cargo marks as its own, at or above OUT_DIR.
fn outer_target_dir() -> Result<PathBuf> {
    let out_dir = out_dir()?;
    let marked = out_dir.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
    Ok(marked.map_or_else(|| out_dir.clone(), Path::to_owned))
}

fn out_dir() -> Result<PathBuf> {
    Ok(PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?))
}

/// Adds the standard library for wasm32 where it is missing and rustup is there to fetch it.
fn ensure_wasm_target() -> Result<()> {
    let rustc = env::var_os("RUSTC").context("RUSTC is not set")?;
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .output()
        .context("asking rustc for its targets")?;
    let libraries = String::from_utf8(output.stdout).context("rustc printed a path that is not UTF-8")?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    println!("cargo::warning=The Rust target {WASM_TARGET} is missing; adding it with rustup.");
    let added = Command::new("rustup").args(["target", "add", WASM_TARGET]).status();
    ensure!(
        added.is_ok_and(|status| status.success()),
        "The browser client needs the Rust target {WASM_TARGET}, and rustup could not add it.\n\
         With rustup and a network: rustup target add {WASM_TARGET}\n\
         With a distribution's Rust: install its package for wasm32 (Debian: libstd-rust-dev-wasm32).\n\
         To build a server without a client: MAGPIE_NO_CLIENT=1"
    );
    Ok(())
}

// ---- The bundle ----

/// How hard to compress: `Fast` for builds that only a developer sees.
#[derive(Clone, Copy)]
enum Level {
    Fast,
    Best,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The page itself, at `/`.
    Page,
    /// Part of a first visit. The name holds the content's hash, so that it may be cached for ever.
    Hashed,
    /// The same, but not loaded by a first visit.
    Later,
    /// A file with a name that others rely on; not loaded by a first visit.
    Named,
}

struct File {
    path: String,
    kind: Kind,
    content_type: &'static str,
    hash: String,
    identity_bytes: usize,
    brotli_bytes: Option<usize>,
    gzip_bytes: Option<usize>,
}

/// The files so far; their bytes are in `directory`.
struct Bundle {
    level: Level,
    directory: PathBuf,
    files: Vec<File>,
    /// The tags that load and start the program of the first page, and the whole one.
    programs: [String; 2],
}

impl Bundle {
    fn new(level: Level) -> Result<Bundle> {
        let directory = out_dir()?.join("assets");
        if directory.exists() {
            fs::remove_dir_all(&directory).context("removing the assets of an earlier build")?;
        }
        fs::create_dir_all(&directory).context("creating the directory for assets")?;
        Ok(Bundle { level, directory, files: Vec::new(), programs: Default::default() })
    }

    fn add_page(&mut self, html: &str) -> Result<()> {
        self.add("/", html.as_bytes().to_vec(), Kind::Page)
    }

    /// Adds a file under a name made from its own and its hash, and returns its URL.
    fn add_hashed(&mut self, file_name: &str, bytes: Vec<u8>, kind: Kind) -> Result<String> {
        let (stem, extension) = file_name.rsplit_once('.').context("an asset's name has no extension")?;
        let url = format!("/assets/{stem}-{}.{extension}", hash(&bytes));
        self.add(&url, bytes, kind)?;
        Ok(url)
    }

    /// Runs wasm-bindgen on a program of the client and returns the tags that load and start it.
    fn add_program(&mut self, directory: &Path, name: &str, kind: Kind) -> Result<String> {
        let mut output = Bindgen::new()
            .input_path(directory.join(name).with_extension("wasm"))
            .out_name(name)
            .web(true)?
            .remove_name_section(matches!(self.level, Level::Best))
            .remove_producers_section(true)
            .generate_output()
            .context("wasm-bindgen failed on the client")?;
        ensure!(
            output.snippets().values().all(Vec::is_empty) && output.local_modules().is_empty(),
            "the client (or a crate it uses) brings JavaScript files of its own, which server/build.rs does not embed"
        );
        let (mut wasm, mut glue) = (output.wasm_mut().emit_wasm(), output.js().to_owned());
        if matches!(self.level, Level::Best) {
            number_imports(&mut wasm, &mut glue);
            glue = glue.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        }
        let wasm = self.add_hashed(&format!("{name}.wasm"), wasm, kind)?;
        let glue = self.add_hashed(&format!("{name}.js"), glue.into_bytes(), kind)?;
        let start = self.add_hashed("start.js", start_script(&glue, &wasm).into_bytes(), kind)?;
        Ok(format!(
            "<link rel=\"modulepreload\" href=\"{glue}\">\n\
             <link rel=\"preload\" href=\"{wasm}\" as=\"fetch\" type=\"application/wasm\" crossorigin>\n\
             <script type=\"module\" src=\"{start}\"></script>"
        ))
    }

    /// Writes a file and its compressed forms. A form that is not smaller than the file is left out.
    fn add(&mut self, path: &str, bytes: Vec<u8>, kind: Kind) -> Result<()> {
        ensure!(self.files.iter().all(|file| file.path != path), "two assets want the path {path}");
        let stem = self.directory.join(self.files.len().to_string());
        let write = |extension: &str, content: Vec<u8>| -> Result<Option<usize>> {
            if extension != "identity" && content.len() >= bytes.len() {
                return Ok(None);
            }
            fs::write(stem.with_extension(extension), &content).context("writing an asset")?;
            Ok(Some(content.len()))
        };
        write("identity", bytes.clone())?;
        let brotli_bytes = write("br", brotli(&bytes, self.level)?)?;
        let gzip_bytes = write("gz", gzip(&bytes, self.level)?)?;
        self.files.push(File {
            path: path.to_owned(),
            kind,
            content_type: content_type(if path.contains('.') { path } else { "index.html" })?,
            hash: hash(&bytes),
            identity_bytes: bytes.len(),
            brotli_bytes,
            gzip_bytes,
        });
        Ok(())
    }

    /// Writes `assets.rs`, which `src/assets.rs` includes, and `assets.tsv`, which `cargo xtask size` reads:
    /// a line for each file with its path, its bytes as they are and by brotli, and whether a first visit
    /// loads it.
    fn write_table(self) -> Result<()> {
        let mut rust = String::from("&[\n");
        let mut sizes = String::new();
        for (index, file) in self.files.iter().enumerate() {
            let include = |extension| {
                format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/assets/{index}.{extension}\"))")
            };
            let option = |bytes: Option<usize>, extension| match bytes {
                Some(_) => format!("Some({})", include(extension)),
                None => "None".to_owned(),
            };
            writeln!(
                rust,
                "Asset {{ path: {:?}, content_type: {:?}, etag: \"W/\\\"{}\\\"\", immutable: {}, \
                 identity: {}, brotli: {}, gzip: {} }},",
                file.path,
                file.content_type,
                file.hash,
                matches!(file.kind, Kind::Hashed | Kind::Later),
                include("identity"),
                option(file.brotli_bytes, "br"),
                option(file.gzip_bytes, "gz"),
            )?;
            let brotli_bytes = file.brotli_bytes.unwrap_or(file.identity_bytes);
            let first = if matches!(file.kind, Kind::Page | Kind::Hashed) { "first" } else { "later" };
            writeln!(sizes, "{}\t{}\t{brotli_bytes}\t{first}", file.path, file.identity_bytes)?;
        }
        rust.push_str("]\n");
        let out_dir = out_dir()?;
        fs::write(out_dir.join("assets.rs"), rust).context("writing the table of assets")?;
        fs::write(out_dir.join("assets.tsv"), sizes).context("writing the sizes of assets")
    }
}

/// Gives each function that wasm-bindgen imports a number for a name, in the program and in its glue alike:
/// the usual names end in 16 digits of a hash, which no compression can shorten. A number is as long as the
/// name it stands for, so that nothing else in the binary moves.
fn number_imports(wasm: &mut [u8], glue: &mut String) {
    const PREFIX: &str = "__wbg_";
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let is_import = |word: &str| {
        let digits = word.rsplit_once('_').map_or("", |(_, digits)| digits);
        word.starts_with(PREFIX) && digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let text = std::mem::take(glue);
    let mut numbers = BTreeMap::new();
    for word in text.split_inclusive(|c| !is_name(c)) {
        let name = word.trim_end_matches(|c| !is_name(c));
        if is_import(name) {
            let next = numbers.len();
            let number =
                numbers.entry(name).or_insert_with(|| format!("__{next:0width$}", width = name.len() - 2));
            glue.push_str(number);
            glue.push_str(&word[name.len()..]);
        } else {
            glue.push_str(word);
        }
    }
    let mut place = 0;
    while let Some(found) = wasm[place..].windows(PREFIX.len()).position(|bytes| bytes == PREFIX.as_bytes()) {
        place += found;
        let length = wasm[place..].iter().take_while(|byte| is_name(char::from(**byte))).count();
        let name = &mut wasm[place..place + length];
        if let Some(number) = str::from_utf8(name).ok().and_then(|name| numbers.get(name)) {
            name.copy_from_slice(number.as_bytes());
        }
        place += length;
    }
}

/// The module that starts the client. It is a file, not an inline script, so that the page's
/// Content-Security-Policy can forbid inline scripts. If the client cannot start (no WebAssembly, a broken
/// download), the shell in index.html, which the client would have replaced, says so.
fn start_script(glue: &str, wasm: &str) -> String {
    format!(
        "import init from \"{glue}\";\n\
         init({{ module_or_path: \"{wasm}\" }}).catch((error) => {{\n\
         \x20 console.error(error);\n\
         \x20 const shell = document.getElementById(\"loading\");\n\
         \x20 if (shell) shell.textContent = \"Magpie could not start. Reload the page, or try a newer browser.\";\n\
         }});\n"
    )
}

fn content_type(path: &str) -> Result<&'static str> {
    Ok(match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webmanifest") => "application/manifest+json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => bail!("server/build.rs knows no content type for {path}"),
    })
}

/// The first 16 hexadecimal digits of the content's SHA-256.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn brotli(bytes: &[u8], level: Level) -> Result<Vec<u8>> {
    let quality = match level {
        Level::Fast => 4,
        Level::Best => 11,
    };
    let params = brotli::enc::BrotliEncoderParams { quality, size_hint: bytes.len(), ..Default::default() };
    let mut compressed = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut compressed, &params).context("brotli")?;
    Ok(compressed)
}

fn gzip(bytes: &[u8], level: Level) -> Result<Vec<u8>> {
    let level = match level {
        Level::Fast => flate2::Compression::fast(),
        Level::Best => flate2::Compression::best(),
    };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).context("gzip")?;
    encoder.finish().context("gzip")
}
