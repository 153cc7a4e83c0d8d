//! Compiles the CUDA kernels, if the feature `cuda` is on; without it nothing is done and nothing of CUDA is needed.
//!
//! Each `src/**/<module>.cu` becomes a cubin for `CUDA_COMPUTE_CAP` (90 unless given) and PTX for other
//! cards of 8.0 and later. What ptxas says of registers and spills is kept beside them. The compiler is `$NVCC`, else
//! `$CUDA_HOME/bin/nvcc` (or `$CUDA_PATH`), else `nvcc` on the path.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: &str = "src";
const FLAGS: [&str; 5] = ["-O3", "-std=c++17", "--expt-relaxed-constexpr", "-lineinfo", "-Xptxas=-v"];
const PTX: &str = "-gencode=arch=compute_80,code=compute_80";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo:rerun-if-changed={KERNELS}");
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "CUDA_COMPUTE_CAP"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if let Err(message) = compile_all() {
        println!("cargo:warning=the CUDA kernels were not compiled: {message}");
        eprintln!("{message}");
        std::process::exit(1);
    }
}

fn compile_all() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo gave no OUT_DIR")?);
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo gave no CARGO_MANIFEST_DIR")?);
    let nvcc = nvcc();
    let target = target()?;
    let include = root.join(KERNELS);
    let (mut table, mut report) = (String::new(), String::new());
    for source in sources(&include)? {
        let stem = source.file_stem().and_then(|stem| stem.to_str()).ok_or("a kernel's file has no name")?;
        let (cubin, ptx) = (out.join(format!("{stem}.cubin")), out.join(format!("{stem}.ptx")));
        let (compute, code) = (format!("compute_{target}"), format!("sm_{target}"));
        let machine = format!("-gencode=arch={compute},code={code}");
        let told = compile(&nvcc, &include, &source, &["--cubin", &machine], &cubin)?;
        let _ = writeln!(report, "== {stem}.cu for {code}\n{told}");
        compile(&nvcc, &include, &source, &["--ptx", PTX], &ptx)?;
        let _ = writeln!(table, "    ({stem:?}, include_bytes!({cubin:?}), include_str!({ptx:?})),");
    }
    let text = format!("&[\n{table}]\n");
    write(&out.join("modules.rs"), &text)?;
    write(&out.join("ptxas.txt"), &report)
}

/// `90` as `90a`, whose cubin may use what only that architecture has; others as they are.
fn target() -> Result<String, String> {
    let wanted = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "90".into()).replace('.', "");
    let number: u32 = wanted
        .trim_end_matches(char::is_alphabetic)
        .parse()
        .map_err(|_| format!("CUDA_COMPUTE_CAP is {wanted:?}, wanted a number such as 90"))?;
    match number {
        90 => Ok("90a".into()),
        80.. => Ok(wanted),
        _ => Err(format!("CUDA_COMPUTE_CAP is {wanted}; the kernels need a card of 8.0 or later")),
    }
}

fn nvcc() -> PathBuf {
    let home = ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(env::var_os);
    let of_home = home.map(|home| Path::new(&home).join("bin/nvcc")).filter(|path| path.exists());
    env::var_os("NVCC").map(PathBuf::from).or(of_home).unwrap_or_else(|| "nvcc".into())
}

/// The `.cu` files in a directory and below it, in order.
fn sources(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "cu") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What the compiler said on its standard error.
fn compile(nvcc: &Path, include: &Path, source: &Path, kind: &[&str], out: &Path) -> Result<String, String> {
    let result = Command::new(nvcc)
        .args(FLAGS)
        .arg("-I")
        .arg(include)
        .args(kind)
        .arg("-o")
        .arg(out)
        .arg(source)
        .output();
    let output = result.map_err(|error| {
        format!(
            "{}: {error}; install the CUDA toolkit, or name its compiler in NVCC or its place in CUDA_HOME",
            nvcc.display()
        )
    })?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(told) } else { Err(format!("{}: {told}", source.display())) }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
