"""Maven, by way of jgo's own resolver: fetches a jar by its coordinates, and finds which jars Kafka needs.

No host is named here. The repositories are jgo's default, those of the user's jgo configuration, and, in
place of `central`, the mirror that the user's Maven `settings.xml` names. A jar that the user's local Maven
folder already holds is taken from there.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stream_app.broker.errors import JarDamagedError, JarDownloadError
from stream_app.broker.jars import Jar, sha256_of

if TYPE_CHECKING:
    from jgo.maven import MavenContext

KAFKA: Final = "org.apache.kafka:kafka_2.13:4.3.1"
"""The newest version whose dependencies all resolve; 4.4.0 asks for an artifact that was never published."""

TIMEOUT_S: Final = 60
"""Bound for one answer of a repository; the largest jar, 10 MB, streams in well under it."""

NOT_NEEDED: Final = frozenset(
    {
        # Only macros of scala-logging, expanded when Kafka was compiled, refer to it.
        "scala-reflect",
        # Only the XML validators of commons-validator use these; Kafka uses its address check alone.
        "commons-beanutils",
        "commons-collections",
        "commons-digester",
        "commons-logging",
        # No class of the broker refers to these; the container image's wrapper refers to the YAML one.
        "jackson-dataformat-csv",
        "jackson-dataformat-yaml",
        "jackson-datatype-jdk8",
        "snakeyaml",
    }
)


def find_mirror(settings_xml: str) -> str | None:
    """Return the address of the mirror of `central` in a Maven `settings.xml`, or None.

    The patterns `central`, `*` and `external:*` count, and `!central` excludes, as Maven reads them. The
    first mirror that matches wins.
    """
    for mirror in ElementTree.fromstring(settings_xml).iterfind(".//{*}mirrors/{*}mirror"):
        patterns = [part.strip() for part in (mirror.findtext("{*}mirrorOf") or "").split(",")]
        address = (mirror.findtext("{*}url") or "").strip()
        if address and "!central" not in patterns and {"central", "*", "external:*"} & set(patterns):
            return address
    return None


def _repositories() -> tuple[dict[str, str] | None, Path]:
    """Return the user's repositories (None: jgo's default alone) and the user's local Maven folder."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL

    settings = GlobalSettings.load()
    repositories = {"central": MAVEN_CENTRAL_URL}
    settings_xml = Path.home() / ".m2" / "settings.xml"
    if settings_xml.is_file() and (mirror := find_mirror(settings_xml.read_text("utf-8"))):
        repositories["central"] = mirror
    return {**repositories, **settings.repositories}, settings.repo_cache


def _open(scratch: Path, *, with_local: bool) -> MavenContext:
    from jgo.maven import MavenContext  # jgo takes 0.2 s to import and is needed only when a jar is missing

    repositories, local = _repositories()
    return MavenContext(
        repo_cache=scratch / "maven",
        local_repos=[local] if with_local else [],
        remote_repos=repositories,
        timeout=TIMEOUT_S,
    )


def fetch_jar(jar: Jar, scratch: Path) -> Path:
    """Get one jar, from the user's local Maven folder if it has the right one, else from a repository.

    Args:
        jar: What to get.
        scratch: A folder of the caller's, where what is downloaded may be put.

    Returns:
        The path of the jar; the caller checks its hash.

    Raises:
        JarDownloadError: No repository gave it.
    """
    try:
        local = _artifact(jar, _open(scratch, with_local=True))
        if sha256_of(local) == jar.sha256:
            return local
        return _artifact(jar, _open(scratch, with_local=False))
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo raises RuntimeError
        raise JarDownloadError(
            f"{jar.coordinates} could not be fetched: {error}.",
            mend="check the network, or name a mirror in Maven's settings.xml or in jgo's configuration; "
            "what was fetched so far is kept.",
        ) from error


def _artifact(jar: Jar, context: MavenContext) -> Path:
    return context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()


def resolve_jars(scratch: Path) -> tuple[Jar, ...]:
    """Find out which jars Kafka's broker needs, fetch them into `scratch`, and hash them.

    Kafka's own dependencies come from its POM; the bridge from slf4j to log4j, which Kafka leaves to whoever
    runs it, is added in the version of log4j that Kafka brings. It isn't resolved together with Kafka: jgo
    reads every requested POM as a bill of materials, and log4j's names an older Kafka client.

    Raises:
        JarDamagedError: Kafka brings no log4j, so that the bridge has no version.
        OSError, RuntimeError: A POM or jar could not be fetched.
    """
    context = _open(scratch, with_local=False)
    inputs, others = context.resolver.resolve([context.create_dependency(KAFKA)])
    wanted = {
        (dep.groupId, dep.artifactId): dep.version
        for dep in [*inputs, *others]
        if dep.type == "jar" and not dep.classifier and dep.artifactId not in NOT_NEEDED
    }
    log4j = wanted.get(("org.apache.logging.log4j", "log4j-core"))
    if log4j is None:
        raise JarDamagedError(f"{KAFKA} brings no log4j-core, so the logging bridge has no version to take.")
    wanted["org.apache.logging.log4j", "log4j-slf4j-impl"] = log4j
    wanted.setdefault(("org.slf4j", "slf4j-api"), "1.7.36")
    return tuple(_hashed(context, group, name, version) for (group, name), version in sorted(wanted.items()))


def _hashed(context: MavenContext, group: str, artifact: str, version: str) -> Jar:
    path = _artifact(Jar(group, artifact, version, ""), context)
    return Jar(group, artifact, version, sha256_of(path))
