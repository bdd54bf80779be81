# From the project's folder, which must be a git repository: nix build '.?dir=packaging/nix'
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
            install -Dm644 -t $out/share/doc/vault-backup README.md CHANGELOG.md SECURITY.md SPEC.md LICENSE tests/reader.py
            install -Dm644 -t $out/share/doc/vault-backup/docs docs/*.md
            install -Dm644 -t $out/share/doc/vault-backup/docs/images docs/images/*.png
          '' + pkgs.lib.optionalString pkgs.stdenv.isLinux ''
            install -Dm644 -t $out/lib/systemd/system packaging/systemd/vault-run.*
            substituteInPlace $out/lib/systemd/system/vault-run.service --replace-fail /usr/bin/vault $out/bin/vault
          '';
          meta = {
            description = "Encrypted, deduplicated backups of folders";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "vault";
          };
        };
      });
    };
}
