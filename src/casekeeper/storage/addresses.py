"""What is wrong with the address of a store."""


class StoreAddressInvalid(ValueError):
    """The address names no store that casekeeper knows, or one for which a library is missing."""

    setting = "CASEKEEPER_STORE"

    def __str__(self) -> str:
        # Whoever tells it ends the sentence.
        return f"{self.setting}: {super().__str__()}".removesuffix(".")


class BlobsAddressInvalid(StoreAddressInvalid):
    """The same, of the place for blobs."""

    setting = "CASEKEEPER_BLOBS"
