//! The `vault` command. All its code is in the library, in `cli`.

#[global_allocator]
static ALLOCATOR: vault::memory::Allocator = vault::memory::Allocator;

fn main() -> std::process::ExitCode {
    vault::cli::main()
}
