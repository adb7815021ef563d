"""Says which of the files given are no CycloneDX 1.5: check_sbom.py FILE..."""

import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

validator = JsonStrictValidator(SchemaVersion.V1_5)
bad = False
for name in sys.argv[1:]:
    error = validator.validate_str(pathlib.Path(name).read_text())
    print(f"{name}: {error or 'valid'}")
    bad = bad or error is not None
sys.exit(bad or not sys.argv[1:])
