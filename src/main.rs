//! The `vault` command. All its code is in `cli`.

mod cli;

#[global_allocator]
static ALLOCATOR: vault::memory::Allocator = vault::memory::Allocator;

fn main() -> std::process::ExitCode {
    cli::main()
}
