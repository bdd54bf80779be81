{
  description = "Encrypted, deduplicated backups of folders";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      each = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in {
      packages = each (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "vault-backup";
          version = (builtins.fromTOML (builtins.readFile ../../Cargo.toml)).package.version;
          src = ../..;
          cargoLock.lockFile = ../../Cargo.lock;
          nativeBuildInputs = [ pkgs.installShellFiles ];
          # The tests want a writable home and minutes; the project's own gate runs them.
          doCheck = false;
          postInstall = ''
            $out/bin/vault man man
            installManPage man/*.1
            for shell in bash zsh fish; do
              $out/bin/vault completions $shell --dynamic > vault.$shell
            done
            installShellCompletion vault.{bash,zsh,fish}
          '';
          meta.mainProgram = "vault";
        };
      });
    };
}
