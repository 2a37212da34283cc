"""What lies in conf/: the groups and their options."""

from pathlib import Path

from lthbench.cli.compose import conf_dir

GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in sorted(Path(conf_dir()).iterdir())
    if folder.is_dir()
}
