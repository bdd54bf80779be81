# A formula for a tap. The address and the checksum of the source are entered when a release is made (docs/release.md).
class VaultBackup < Formula
  desc "Encrypted, deduplicated backups of folders"
  url "vault-0.2.0.tar.gz"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  conflicts_with "vault", because: "both install a program called vault"

  def install
    system "cargo", "install", *std_cargo_args
    system bin/"vault", "man", buildpath/"man"
    man1.install Dir["man/*.1"]
    doc.install "README.md", "CHANGELOG.md", "SECURITY.md", "SPEC.md", "tests/reader.py", "docs"
    generate_completions_from_executable(bin/"vault", "completions", "--dynamic")
  end

  service do
    run [opt_bin/"vault", "run", "--background", "--quiet"]
    run_type :interval
    interval 900
  end

  test do
    ENV["VAULT_PASSWORD"] = "secret"
    (testpath/"files").mkpath
    (testpath/"files/one").write "text"
    system bin/"vault", "snapshot", "--init", "--repo", testpath/"store", testpath/"files"
    assert_equal "text", shell_output("#{bin}/vault cat --repo #{testpath}/store latest:files/one")
  end
end
