//! Runs our CUDA kernels on the CPU: compiles them with the system's C++ compiler against the emulation, and launches
//! them over buffers. What the emulation finds is listed in `src/cuda/emulation/cuda.h`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The orders of threads and blocks in which a launch must give the same bits.
const ORDERS: [u32; 4] = [0, 1, 2, 3];

/// The program that the kernels were compiled to.
pub(crate) struct Emulator {
    program: PathBuf,
    directory: tempfile::TempDir,
}

/// All kernels; `None`, with a note, where there is no C++ compiler.
pub(crate) fn emulator() -> Option<&'static Emulator> {
    static COMPILED: OnceLock<Option<Emulator>> = OnceLock::new();
    COMPILED.get_or_init(Emulator::compile).as_ref()
}

impl Emulator {
    fn compile() -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let kernels = root.join("src");
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("kernels");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        let unit = directory.path().join("kernels.cpp");
        std::fs::write(&unit, one_unit(&kernels, &root.join("tests/kernels"))).unwrap();
        let mut command = Command::new(&compiler);
        command.args(["-std=c++17", "-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off"]);
        command.arg("-I").arg(&kernels).arg("-pthread").arg(&unit).arg("-o").arg(&program);
        match command.output() {
            Err(error) => {
                eprintln!("skipped: the kernels were not emulated, {compiler}: {error}");
                None
            }
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Some(Self { program, directory })
            }
        }
    }
}

/// A program that includes all sources, each in a namespace of its own: headers are read once, not once a source.
fn one_unit(kernels: &Path, probes: &Path) -> String {
    let mut unit = String::new();
    for header in files(kernels, "cuh") {
        let _ = writeln!(unit, "#include {header:?}");
    }
    for (index, source) in files(kernels, "cu").into_iter().chain(files(probes, "cu")).enumerate() {
        let _ = writeln!(unit, "namespace unit_{index} {{\n#include {source:?}\n}}");
    }
    let _ = writeln!(unit, "#include {:?}", kernels.join("cuda/emulation/main.cpp"));
    unit
}

/// The files with `extension` in a directory and below it, in order.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// How a kernel is launched.
#[derive(Clone, Copy, Default)]
pub(crate) struct LaunchShape {
    /// Blocks.
    pub(crate) grid: [usize; 3],
    /// Threads of a block.
    pub(crate) block: [usize; 3],
    /// Bytes of dynamic shared memory.
    pub(crate) shared: usize,
    /// Whether blocks may wait for one another.
    pub(crate) cooperative: bool,
}

impl LaunchShape {
    /// `blocks` of `threads`.
    pub(crate) fn flat(blocks: usize, threads: usize) -> Self {
        Self { grid: [blocks, 1, 1], block: [threads, 1, 1], ..Self::default() }
    }
}

/// Launches that follow one another over the same buffers.
#[derive(Default)]
pub(crate) struct Script {
    text: String,
    loads: BTreeMap<String, Vec<u8>>,
}

/// What is put into buffers and comes out of them.
pub(crate) trait Number: Copy {
    fn bytes(self) -> Vec<u8>;
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($t:ty),*) => {$(
        impl Number for $t {
            fn bytes(self) -> Vec<u8> {
                self.to_ne_bytes().to_vec()
            }

            fn from_bytes(bytes: &[u8]) -> Self {
                Self::from_ne_bytes(bytes.try_into().unwrap())
            }
        }
    )*};
}

number!(f32, f64, u8, u16, u32, i32, u64);

impl Script {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A buffer with these values; `&name` (or `&name+BYTES`) is the argument that points to it.
    pub(crate) fn load<T: Number>(&mut self, name: &str, values: &[T]) {
        let _ = writeln!(self.text, "load {name} {{{name}}}");
        self.loads.insert(name.into(), values.iter().flat_map(|value| value.bytes()).collect());
    }

    /// A buffer for `count` values whose bits are all set, so that what is not written is seen.
    pub(crate) fn buffer<T: Number>(&mut self, name: &str, count: usize) {
        let _ = writeln!(self.text, "buffer {name} {}", count * size_of::<T>());
    }

    /// A launch; an argument is a number, or a buffer as [`Script::load`] says, or `0` for no buffer.
    pub(crate) fn launch(&mut self, kernel: &str, shape: LaunchShape, arguments: &[&dyn std::fmt::Display]) {
        let LaunchShape { grid, block, shared, cooperative } = shape;
        let _ = write!(self.text, "launch {kernel}");
        for size in grid.iter().chain(&block) {
            let _ = write!(self.text, " {size}");
        }
        let _ = write!(self.text, " {shared} {}", u8::from(cooperative));
        for argument in arguments {
            let _ = write!(self.text, " {argument}");
        }
        self.text.push('\n');
    }

    /// What the buffers `names` hold at the end.
    ///
    /// # Panics
    /// If a mistake was found, or another order of threads and blocks gives other bits.
    pub(crate) fn run(&self, emulator: &Emulator, names: &[&str]) -> Results {
        let all = ORDERS.map(|order| self.run_in_order(emulator, names, order));
        let [first, rest @ ..] = all.map(|found| found.unwrap_or_else(|message| panic!("{message}")));
        for (order, other) in ORDERS[1..].iter().zip(rest) {
            for name in names {
                let same = first.0[*name] == other.0[*name];
                assert!(same, "buffer {name} depends on the order of threads: orders 0 and {order} differ");
            }
        }
        first
    }

    /// What the buffers `names` hold after the launches in one order, or what the emulation found wrong.
    pub(crate) fn run_in_order(
        &self,
        emulator: &Emulator,
        names: &[&str],
        order: u32,
    ) -> Result<Results, String> {
        let directory = tempfile::tempdir_in(emulator.directory.path()).unwrap();
        let path = |name: &str| directory.path().join(name);
        let mut text = self.text.clone();
        for (name, bytes) in &self.loads {
            std::fs::write(path(name), bytes).unwrap();
            text = text.replace(&format!("{{{name}}}"), path(name).to_str().unwrap());
        }
        for name in names {
            let _ = writeln!(text, "dump {name} {}", path(&format!("{name}.out")).display());
        }
        let mut command = Command::new(&emulator.program);
        command.env("EMULATION_ORDER", order.to_string()).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {message}", output.status));
        }
        let dumped = |name: &&str| (name.to_string(), std::fs::read(path(&format!("{name}.out"))).unwrap());
        Ok(Results(names.iter().map(dumped).collect()))
    }
}

/// Bytes of buffers by name.
pub(crate) struct Results(BTreeMap<String, Vec<u8>>);

impl Results {
    /// The buffer's values.
    pub(crate) fn get<T: Number>(&self, name: &str) -> Vec<T> {
        self.0[name].chunks_exact(size_of::<T>()).map(T::from_bytes).collect()
    }
}
