"""The calls that TF Serving answers, as functions from proto to proto, shared by gRPC and REST."""

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from serving.errors import invalid, not_found
from serving.predict import predict
from serving.record import Record
from serving.servable import Servable
from serving.versions import Versions

SIGNATURE_DEF = "signature_def"
_State = get_model_status_pb2.ModelVersionStatus.State


class Api:
    """Answers requests to the served models.

    Every method fills in the request's record, and raises RequestError with TF Serving's codes if it cannot
    answer.

    Args:
        versions: the served versions.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def servable(self, spec: model_pb2.ModelSpec, record: Record) -> Servable:
        """Find the model of a request's model_spec; INVALID_ARGUMENT if it has no name, NOT_FOUND if that is not served."""
        servable = self._versions.get(_named(spec), self._version(spec))
        record.model, record.version = servable.name, servable.version
        return servable

    def predict(self, request: predict_pb2.PredictRequest, record: Record) -> predict_pb2.PredictResponse:
        """Run a model; see `serving.predict`."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return predict(self.servable(request.model_spec, record), request, record)

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, record: Record
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a model."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        servable = self.servable(request.model_spec, record)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = servable.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.definitions)
        response.metadata[SIGNATURE_DEF].Pack(signatures)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest, record: Record
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the states of the versions of a model, or of one of them."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        spec, name = request.model_spec, _named(request.model_spec)
        version, states = self._version(spec), self._versions.states(name)
        if not states:
            raise not_found(f"Could not find any versions of model {name}")
        record.model = name
        if version is not None:
            if version not in states:
                raise not_found(f"Could not find version {version} of model {name}")
            states = {version: states[version]}
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in states.items():
            status = response.model_version_status.add(version=version, state=_State.Value(state.name))
            status.status.error_code = state.code.value[0]
            status.status.error_message = state.message
        return response

    def _version(self, spec: model_pb2.ModelSpec) -> int | None:
        match spec.WhichOneof("version_choice"):
            case "version":
                return int(spec.version.value)
            case "version_label":
                return self._versions.labelled(spec.version_label)
            case _:
                return None


def _named(spec: model_pb2.ModelSpec) -> str:
    if not spec.name:
        raise invalid("ModelSpec has no name specified.")
    return spec.name
